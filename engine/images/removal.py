"""What removing an image means: names first, then the image when nothing keeps it, then its layers.

The rules and words are dockerd's: a name given by the user is taken away when another name or a
forced hand allows it; an ID takes everything when all names are of one repository.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.http import Conflict
from engine.images.catalog import Catalog
from engine.images.index import ImageIndex, StoredImage
from engine.registry.digest import short
from engine.registry.reference import Reference, parse_reference

__all__ = ["Removal", "Removed", "User", "is_single"]


@dataclass(frozen=True, kw_only=True)
class User:
    """A container made from the image."""

    id: str
    running: bool


@dataclass(frozen=True, kw_only=True)
class Removed:
    untagged: str = ""
    deleted: str = ""

    def as_json(self) -> dict[str, str]:
        return {"Untagged": self.untagged} if self.untagged else {"Deleted": self.deleted}


Users = Callable[[], Awaitable[Mapping[str, Sequence[User]]]]  # by image ID
Event = Callable[[str, StoredImage], None]  # "untag" or "delete"


def is_single(references: Sequence[Reference]) -> bool:
    """One name, or one tag beside digests of the same repository."""
    tags = [reference for reference in references if reference.tag]
    repositories = {reference.name for reference in references}
    return len(references) == 1 or (len(repositories) == 1 and len(tags) <= 1)


class Removal:
    """One removal; call it with ``catalog.changing`` held."""

    def __init__(
        self,
        catalog: Catalog,
        index: ImageIndex,
        users: Mapping[str, Sequence[User]],
        event: Event,
        *,
        prune: bool = True,
    ) -> None:
        self._catalog = catalog
        self._index = index
        self._users = users
        self._event = event
        self._prune = prune  # with an image its parents go that have no name
        self.records: list[Removed] = []

    async def remove(self, name: str, *, force: bool) -> None:
        image = self._index.resolve(name)
        if self._index.is_id_prefix(image.id, name):
            await self._by_id(image, force=force)
        else:
            await self._by_name(image, parse_reference(name), force=force)

    async def _by_name(self, image: StoredImage, given: Reference, *, force: bool) -> None:
        names = self._index.references(image.id)
        users = self._users.get(image.id, ())
        said = given.familiar
        given = given.with_digest(given.digest) if given.digest else given.tagged
        if not force and is_single(names) and users:
            raise Conflict(
                f'conflict: unable to remove repository reference "{said}" (must force) - '
                f"container {short(users[0].id)} is using its referenced image {short(image.id)}"
            )
        await self._untag(image, given)
        rest = self._index.references(image.id)
        same = [reference for reference in rest if reference.name == given.name]
        if given.tag and not any(reference.tag for reference in same):
            for reference in same:  # digests of a repository go with its last tag
                await self._untag(image, reference)
        if not self._index.references(image.id):
            await self._delete(image, force=force, quiet=True)

    async def _by_id(self, image: StoredImage, *, force: bool) -> None:
        names = self._index.references(image.id)
        if names and is_single(names):
            self._check(image, force=force, ignore_names=True)
            for reference in names:
                await self._untag(image, reference)
        await self._delete(image, force=force)

    async def _delete(self, image: StoredImage, *, force: bool, quiet: bool = False) -> None:
        """``quiet``: what is still needed stays, and nobody is told."""
        try:
            self._check(image, force=force)
        except Conflict:
            if quiet:
                return
            raise
        for reference in self._index.references(image.id):
            await self._untag(image, reference)
        removed = await self._catalog.forget(image.id)
        self._event("delete", image)
        self.records.append(Removed(deleted=image.id))
        self.records.extend(Removed(deleted=chain_id) for chain_id in removed)
        parent = self._index.get(image.parent) if self._prune else None
        if parent is not None:  # a step of a build that nobody has named
            await self._delete(parent, force=False, quiet=True)

    async def _untag(self, image: StoredImage, reference: Reference) -> None:
        await self._catalog.unname(reference)
        self.records.append(Removed(untagged=reference.familiar))
        self._event("untag", image)

    def _check(self, image: StoredImage, *, force: bool, ignore_names: bool = False) -> None:
        if self._index.children(image.id):
            raise _conflict(image, "cannot be forced", "image has dependent child images")
        users = self._users.get(image.id, ())
        for user in users:
            if user.running:
                raise _conflict(
                    image, "cannot be forced", f"image is being used by running container {short(user.id)}"
                )
        if force:
            return
        if self._index.references(image.id) and not ignore_names:
            raise _conflict(image, "must be forced", "image is referenced in multiple repositories")
        if users:
            raise _conflict(
                image, "must be forced", f"image is being used by stopped container {short(users[0].id)}"
            )


def _conflict(image: StoredImage, how: str, why: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {short(image.id)} ({how}) - {why}")
