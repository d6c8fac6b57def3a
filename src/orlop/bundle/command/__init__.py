"""The verbs of `orlop-runtime`, one module for each family."""
