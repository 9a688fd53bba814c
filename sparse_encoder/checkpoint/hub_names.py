"""Which words are paths, which are repositories: the rules for the name of a model."""

from __future__ import annotations

import re
from pathlib import Path

DEFAULT_ORGANISATION = "sparse-encoder"
_FAMILIES = {
    "albert-": "base-v1 base-v2 large-v1 large-v2 xlarge-v1 xlarge-v2 xxlarge-v1 xxlarge-v2",
    "bert-": "base-cased base-cased-finetuned-mrpc base-chinese base-german-cased base-german-dbmdz-cased"
    " base-german-dbmdz-uncased base-multilingual-cased base-multilingual-uncased base-uncased large-cased"
    " large-cased-whole-word-masking large-cased-whole-word-masking-finetuned-squad large-uncased"
    " large-uncased-whole-word-masking large-uncased-whole-word-masking-finetuned-squad",
    "distilbert-base-": "cased cased-distilled-squad german-cased multilingual-cased uncased"
    " uncased-distilled-squad uncased-finetuned-sst-2-english",
    "gpt2-": "large medium xl",
    "roberta-": "base base-openai-detector large large-mnli large-openai-detector",
    "t5-": "11b 3b base large small",
    "xlm-": "clm-ende-1024 clm-enfr-1024 mlm-100-1280 mlm-17-1280 mlm-en-2048 mlm-ende-1024 mlm-enfr-1024"
    " mlm-enro-1024 mlm-tlm-xnli15-1024 mlm-xnli15-1024 roberta-base roberta-large"
    " roberta-large-finetuned-conll02-dutch roberta-large-finetuned-conll02-spanish"
    " roberta-large-finetuned-conll03-english roberta-large-finetuned-conll03-german",
    "xlnet-": "base-cased large-cased",
}
ORIGINAL_NAMES = frozenset(
    {prefix + rest for prefix, names in _FAMILIES.items() for rest in names.split()}
    | {"camembert-base", "ctrl", "distilgpt2", "distilroberta-base", "gpt2", "openai-gpt", "transfo-xl-wt103"}
)
"""Models that are on the hub without an organisation."""
_SECRET = re.compile(r"hf_[A-Za-z0-9]{6,}|(?<=://)[^/@\s]+(?=@)|(?<=token=)[^&\s]+|(?i:(?<=bearer )\S+)")


def repository_of(name: str) -> str:
    """Return the repository a name means that is no local folder.

    Args:
        name: ``organisation/model``, or a bare name: one of :data:`ORIGINAL_NAMES`, or a model of the organisation
            ``sparse-encoder``.

    Raises:
        ValueError: If the name is empty.
        NotADirectoryError: If it is a local file.
        FileNotFoundError: If it can only be a path, and nothing is there.
    """
    if not name or not name.strip():
        raise ValueError("the name of a model must not be empty")
    if Path(name).is_file():
        raise NotADirectoryError(f"{name!r} is a file; give the folder that holds the model")
    if name.count("/") > 1 or "\\" in name or name.startswith(("/", ".", "~")) or name.endswith("/"):
        raise FileNotFoundError(f"there is no folder {redacted(name)!r}, and a repository is called organisation/model")
    if "/" in name or name.lower() in ORIGINAL_NAMES:
        return name
    return f"{DEFAULT_ORGANISATION}/{name}"


def redacted(text: str, token: bool | str | None = None) -> str:
    """Return a text without what looks like an access token, and without ``token``."""
    if isinstance(token, str) and token:
        text = text.replace(token, "<token>")
    return _SECRET.sub("<token>", text)
