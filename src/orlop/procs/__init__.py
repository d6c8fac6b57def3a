"""Processes beside the daemon: the zygote's channel and the pool of sandboxed workers."""
