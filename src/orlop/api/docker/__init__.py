"""The Docker Engine API: one module of handlers per noun, and the differences of its versions."""
