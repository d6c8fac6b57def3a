"""The orlop command, one module per verb, lazily imported."""
