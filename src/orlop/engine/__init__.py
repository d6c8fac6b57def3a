"""Use cases of the engine, one module per noun."""
