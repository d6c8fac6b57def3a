"""Structured concurrency on asyncio: scopes, keyed lock, single flight, HTTP connection drivers."""
