"""The HTTP API: Litestar, composed by build_app(config)."""
