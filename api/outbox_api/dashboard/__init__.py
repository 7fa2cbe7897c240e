"""The dashboard: pages for the person on call (docs/dashboard.md).

sessions   sign-in: an API key in a sealed cookie, and the token of every form
rendering  templates, headers, how times and numbers are written
live       what moves: server-sent events that carry rendered parts of a page
routes     one module for each group of pages; they call what the HTTP API calls
"""
