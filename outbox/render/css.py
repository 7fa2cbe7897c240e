"""Inline CSS: mail clients drop style sheets, so rules are copied to the elements they match."""

from __future__ import annotations

import css_inline

# Nothing is loaded, neither from the network nor from disk; media queries can't be inlined, so
# they stay; links are left as the author wrote them.
_INLINER = css_inline.CSSInliner(
    load_remote_stylesheets=False, keep_at_rules=True, keep_link_tags=True
)


def inline_css(html: str) -> str:
    """Return `html` with its <style> rules inlined; as it was where that fails."""
    try:
        return _INLINER.inline(html)
    except MemoryError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of the native library is no Exception
        return html
