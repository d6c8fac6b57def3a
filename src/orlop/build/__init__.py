"""Builds: Dockerfile frontend, LLB-shaped graph, solver, cache, exporters."""
