"""The command line: composes API, dispatcher and the embedded server."""
