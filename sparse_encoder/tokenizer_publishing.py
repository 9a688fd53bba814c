"""A tokenizer's way to the hub. The upload itself is checkpoint.hub_push."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.checkpoint.hub_push import Parcel, PushOptions, push, working_folder

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


class TokenizerPublishing(ABC):
    """Upload what saves itself as a tokenizer."""

    @abstractmethod
    def save_pretrained(self, folder: Path | str) -> None:
        """Write the tokenizer's files."""

    def push_to_hub(  # house: peer signature
        self,
        repo_id: str,
        use_temp_dir: bool | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        commit_description: str | None = None,
        tags: str | Sequence[str] | None = None,
    ) -> CommitInfo:
        """Upload the tokenizer to the hub in one commit; the repository and the branch are made if they are not there.

        The peer's options for weights, which a tokenizer has none of, are left out.

        Args:
            repo_id: ``owner/name``; without an owner it is that of the token.
            use_temp_dir: False saves into the folder of the repository's name here, and uploads what that has changed.
                None does so if there is such a folder.
            commit_message: First line of the commit; None for "Upload tokenizer".
            private: Whether a new repository is private; None for the owner's default.
            token: Access token; True or None take the stored one.
            create_pr: Open a pull request instead of pushing.
            revision: Branch to upload to.
            commit_description: The rest of the commit's message.
            tags: For the README.

        Returns:
            The commit.

        Raises:
            OSError: If the hub refuses it; also other errors of the hub's client, all without tokens in their texts.
        """
        options = PushOptions(
            repo_id=repo_id,
            token=token,
            private=private,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            commit_description=commit_description,
            tags=tags,
        )
        parcel = Parcel(kind="tokenizer", save=self.save_pretrained, card=lambda name: f"# {name}\n\nA tokenizer.\n")
        return push(parcel, options, folder=working_folder(repo_id, use_temp_dir))
