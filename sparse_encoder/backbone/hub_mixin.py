"""A model's part of an upload to the hub: its tags, and the signature that scripts know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.backbone.saving import Format, ModelSaving
from sparse_encoder.checkpoint import MAX_SHARD_SIZE
from sparse_encoder.checkpoint.hub_push import PushOptions, push, working_folder

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


class ModelPublishing(ModelSaving):
    """Upload a pretrained model; one of its bases."""

    def add_model_tags(self, tags: str | Sequence[str]) -> None:
        """Remember tags for the README of uploads; those that are there are not added again.

        Args:
            tags: One or several.
        """
        new = [tags] if isinstance(tags, str) else tags
        self.model_tags = list(dict.fromkeys([*self.model_tags, *new]))

    def push_to_hub(  # house: peer signature
        self,
        repo_id: str,
        use_temp_dir: bool | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        max_shard_size: int | str = MAX_SHARD_SIZE,
        create_pr: bool = False,
        safe_serialization: bool = True,
        revision: str | None = None,
        commit_description: str | None = None,
        tags: str | Sequence[str] | None = None,
    ) -> CommitInfo:
        """Upload the model to the hub in one commit; the repository and the branch are made if they are not there.

        Args:
            repo_id: ``owner/name``; without an owner it is that of the token.
            use_temp_dir: False saves into the folder of the repository's name here, and uploads what that has changed.
                None does so if there is such a folder.
            commit_message: First line of the commit; None for "Upload model".
            private: Whether a new repository is private; None for the owner's default.
            token: Access token; True or None take the stored one.
            max_shard_size: As in :meth:`save_pretrained`.
            create_pr: Open a pull request instead of pushing.
            safe_serialization: As in :meth:`save_pretrained`.
            revision: Branch to upload to.
            commit_description: The rest of the commit's message.
            tags: For the README, besides those of :meth:`add_model_tags`, which stay as they are.

        Returns:
            The commit.

        Raises:
            OSError: If the hub refuses it; also other errors of the hub's client, all without tokens in their texts.
            ValueError: If an option is malformed.
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

        Format(max_shard_size=max_shard_size)  # which is checked before a repository is made

        def save(folder: Path) -> None:
            self.save_pretrained(folder, max_shard_size=max_shard_size, safe_serialization=safe_serialization)

        return push(self._parcel(save), options, folder=working_folder(repo_id, use_temp_dir))
