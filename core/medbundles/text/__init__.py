"""Reports as text: cleaning, metrics, clinical facts; a text library is imported only where it is used."""

import importlib.util

PACKAGES = ("transformers", "peft", "sacrebleu", "nltk")


def require_text_extra() -> None:
    """Check that the extra `text` is installed.

    Raises:
        ImportError: names the missing packages and how to install them.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"reports need the extra 'text', missing here: {', '.join(missing)}; "
            "install it with: pip install 'medbundles[text]'"
        )
