"""The one door: routes as data, Docker's dialect of HTTP."""
