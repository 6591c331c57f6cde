"""`Collection`: one collection of a Project, with its methods bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta
    from typing import Unpack

    from ..args_idents import Ident
    from ..engine import Batch
    from ..handle import Resource
    from ..index import Query
    from ..records import Counts, ErrorGroup
    from . import Project


class FetchOptions(TypedDict, total=False):
    """The options of `Project.fetch`."""

    recompute: bool
    background: bool | None
    wait: bool | float | timedelta | None
    echo: bool
    raise_error: bool


class NamedFetchOptions(FetchOptions, total=False):
    """The options of `Project.afetch`, with the collection by its other keyword."""

    collection_name: str


class FetchManyOptions(TypedDict, total=False):
    """The options of `Project.fetch_many`."""

    workers: int | None
    executor: Any
    threads: int | None
    recompute: bool
    retry_errors: bool
    progress: bool | Callable[[Counts], None] | None


class Collection:
    """One collection of a Project. Its methods are those of `Project`, without the collection's name.

    >>> books = proj.collection('books')
    >>> books.fetch('moby-dick').value
    """

    def __init__(self, project: Project, name: str) -> None:
        self._project = project
        self._name = name

    @property
    def name(self) -> str:
        """Name of the collection."""
        return self._name

    def __repr__(self) -> str:
        return f'{self._project!r}.collection({self._name!r})'

    def fetch(
        self, ident: Ident, args: Mapping[str, Any] | None = None, **options: Unpack[FetchOptions]
    ) -> Resource:
        """Call `Project.fetch` for this collection."""
        return self._project.fetch(self._name, ident, args, **options)

    async def afetch(
        self, ident: Ident, args: Mapping[str, Any] | None = None, **options: Unpack[FetchOptions]
    ) -> Resource:
        """Call `Project.afetch` for this collection."""
        return await self._project.afetch(self._name, ident, args, **options)

    def fetch_many(
        self,
        idents: Iterable[Any],
        args: Mapping[str, Any] | None = None,
        **options: Unpack[FetchManyOptions],
    ) -> Batch:
        """Call `Project.fetch_many` for this collection."""
        return self._project.fetch_many(self._name, idents, args, **options)

    def get(self, ident: Ident) -> Resource:
        """Call `Project.get` for this collection."""
        return self._project.get(self._name, ident)

    def exists(self, ident: Ident) -> bool:
        """Call `Project.exists` for this collection."""
        return self._project.exists(self._name, ident)

    def query(self, **filters: Any) -> Query:
        """Call `Project.query` for this collection."""
        return self._project.query(self._name, **filters)

    def results(self, **filters: Any) -> Iterator[tuple[str, Any]]:
        """Call `Project.results` for this collection."""
        return self._project.results(self._name, **filters)

    def stats(self) -> dict[str, Any]:
        """Return this collection's part of `Project.stats`."""
        found: dict[str, Any] = self._project.stats(self._name)[self._name]
        return found

    def error_groups(self) -> list[ErrorGroup]:
        """Call `Project.error_groups` for this collection."""
        return self._project.error_groups(self._name)
