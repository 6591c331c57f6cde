"""A report: the pages of a base directory in one file, which needs neither a server nor a network.

The same templates, page after page, made and written one at a time: a million rows take no more memory
than fifty. Nothing in the file runs, and nothing is fetched from anywhere.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
from markupsafe import Markup
from starlette.datastructures import QueryParams

from .. import __version__, directory
from ..errors import HadrosaurError
from . import files, pages, render
from .addresses import address
from .asking import Asked
from .resource import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..project import Project

IMAGES = 8 << 20
"""Bytes of images in a report, as they lie on the disk."""

LARGEST_IMAGE = 512 << 10
"""Bytes of one image: no copy of another size is made, so a larger one is left out."""

MOST_LOOKED_AT = 2000
"""Resources of a collection whose storage is searched for an image."""

MOST_FAILURES, MOST_OF_ALL = 100, 300
"""Failures of a collection that are shown with their logs, as many of each cause; and of the whole file."""

_FORM = re.compile(r'<form\b.*?</form>', re.DOTALL)
_ID = re.compile(r' id="[^"]*"')
_HREF = re.compile(r' href="([^"]*)"')


class _Page(NamedTuple):
    """A page that becomes part of the file."""

    at: str  # its address
    template: str
    make: Callable[[], dict[str, Any]]


class Report:
    """Writes what a base directory, or one collection, holds as one HTML document.

    Attributes:
        left_out: In words, what there was no room for; complete once all parts are made.
    """

    def __init__(self, project: Project, collection: str | None = None, images: int = IMAGES) -> None:
        self._project = project
        if collection is not None:
            project._registry.get_any(collection)  # it is there, or that is said
        self._collection = collection
        self._room = images
        self._failures_left = MOST_OF_ALL
        self.left_out: list[str] = []
        self._names = [collection] if collection is not None else self._largest()

    def _largest(self) -> list[str]:
        names = list(self._project.stats())
        if len(names) > pages.MOST_COLLECTIONS:
            self.left_out.append(f'{len(names) - pages.MOST_COLLECTIONS} collections')
        return names[: pages.MOST_COLLECTIONS]

    def parts(self) -> Iterator[str]:
        """The document, piece by piece."""
        found = self._pages()
        links = {str(Markup.escape(page.at)) for page in found}
        style = render.static('page.css') + render.static('report.css')
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        yield from (
            _environment()
            .get_template('report.html')
            .generate(
                base=self._project.base,
                collection=self._collection,
                names=self._names,
                policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; form-action 'none';"
                " base-uri 'none'",
                style=Markup(style),
                logo=Markup(render.static('logo.svg')),
                made=datetime.now().astimezone(),
                version=__version__,
                parts=(self._part(page, links) for page in found),
                left_out=self.left_out,
            )
        )

    def _part(self, page: _Page, links: set[str]) -> Markup:
        """A page without its forms, and without links to what is not in the file."""
        try:
            data = page.make()
        except HadrosaurError as error:  # it was removed, or is unreadable, while we write
            self.left_out.append(f'{page.at} ({error})')
            return Markup('')
        shown = {**data, 'base': self._project.base, 'acts': False, 'here': page.at}
        html = _environment().get_template(page.template).render(shown)
        start = html.index('>') + 1  # of the part, which keeps its id
        rest = _ID.sub('', _FORM.sub('', html[start:]))
        rest = _HREF.sub(lambda found: f' href="#{found[1]}"' if found[1] in links else '', rest)
        return Markup(html[:start] + rest)

    # --- what is in it -----------------------------------------------------------------------------

    def _pages(self) -> list[_Page]:
        project, found = self._project, []
        if self._collection is None:
            found.append(_Page('/', 'overview.html', lambda: pages.overview(project)))
        for name in self._names:
            found += self._of_collection(name)
        return found

    def _of_collection(self, name: str) -> list[_Page]:
        at, project = address('c', name), self._project

        def collection() -> dict[str, Any]:
            asked = _all(at)
            return {**pages.collection(project, name, asked), 'asked': asked, 'next': None}

        failures, when = self._failures(name), address('timeline', collection=name)
        query = when.partition('?')[2]
        shown = [
            _Page(at, 'collection.html', collection),
            _Page(when, 'timeline.html', lambda: pages.timeline(project, _all('/timeline', query))),
        ]
        if failures:
            causes = address('c', name, 'errors')
            shown.append(_Page(causes, 'errors.html', lambda: pages.errors(project, name)))
        gallery = address('c', name, 'gallery')
        shown.append(_Page(gallery, 'gallery.html', lambda: self._gallery(name, gallery)))
        for ident in failures:
            place = address('c', name, 'r', ident)
            shown.append(_Page(place, 'resource.html', partial(self._resource, name, ident, place)))
        return shown

    def _failures(self, name: str) -> list[str]:
        """Idents of as many failures of each cause, the example first."""
        groups = self._project.error_groups(name)
        found: list[str] = []
        room = min(MOST_FAILURES, self._failures_left)
        for group in groups[:room]:
            most = room // min(len(groups), room)
            rows = self._project.query(name, status='error', error_group=group.group, limit=most)
            found += list(dict.fromkeys([group.example, *(row.ident for row in rows)]))[:most]
        self._failures_left -= len(found)
        total = sum(group.count for group in groups)
        if total > len(found):
            self.left_out.append(f'the logs of {total - len(found)} of {total} failures of {name}')
        return found

    def _resource(self, name: str, ident: str, at: str) -> dict[str, Any]:
        found = resource(self._project, name, ident, _all(at))
        for file in found['storage']:
            if file['preview'] and 'image' in file['preview']:
                file['preview'] = None
        return found

    def _gallery(self, name: str, at: str) -> dict[str, Any]:
        """The images of the resources that finished last, in the file itself, while there is room."""
        shown: list[dict[str, Any]] = []
        large, is_whole = 0, True
        for picture in self._pictures(name, at):
            if picture is None or not self._room:
                is_whole = False
                break
            data = self._image(name, picture)
            if data is None:
                large += 1
            elif len(data) > self._room:
                self._room = 0
            else:
                self._room -= len(data)
                kind = files.IMAGES[picture['image'].rpartition('.')[2].lower()]
                source = f'data:{kind};base64,{base64.b64encode(data).decode()}'
                shown.append({**picture, 'source': source})
        if large:
            self.left_out.append(f'{large} images of {name} of more than {LARGEST_IMAGE >> 10} kB')
        if not is_whole or not self._room:
            self.left_out.append(f'images of {name} after the first {len(shown)}')
        return {'collection': name, 'filters': [], 'pictures': shown, 'next': None}

    def _pictures(self, name: str, at: str) -> Iterator[dict[str, Any] | None]:
        """What the gallery shows, page after page; None where it would go on."""
        following: str | None = at
        for _ in range(MOST_LOOKED_AT // pages.LOOKED_AT):
            if following is None:
                return
            found = pages.gallery(self._project, name, _all(at, following.partition('?')[2]))
            yield from found['pictures']
            following = found['next']
        if following is not None:
            yield None

    def _image(self, name: str, picture: dict[str, Any]) -> bytes | None:
        """The bytes of an image; None where it is large, or gone."""
        with (
            contextlib.suppress(HadrosaurError, OSError),
            files.folder_of(self._project, name, picture['ident']) as folder,
            files.opened_file(folder, directory.STORAGE, *picture['image'].split('/')) as (fd, found),
        ):
            if found.st_size <= LARGEST_IMAGE:
                return os.pread(fd, LARGEST_IMAGE, 0)
        return None


def _all(path: str, query: str = '') -> Asked:
    return Asked(path, QueryParams(query))


@cache
def _environment() -> jinja2.Environment:
    """The templates of the page, as parts of one file."""
    own = jinja2.PackageLoader('hadrosaur.web')
    part, *_ = own.get_source(render.environment(), 'part.html')
    loaders = [jinja2.DictLoader({'base.html': part}), own]
    return render.environment().overlay(loader=jinja2.ChoiceLoader(loaders))
