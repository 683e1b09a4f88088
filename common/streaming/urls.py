"""URLs of shards, whatever names them.

"https://host/{00000..00099}.tar", "s3://bucket/*.tar", "hf://datasets/owner/name", a folder  ->  one URL per shard

Every kind of URL that fsspec knows is read: http(s), hf, and with its package s3, gs, az, ... Credentials come from
where those packages look: HF_TOKEN, AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ...
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from common.cli.errors import one_line
from common.text.files import read_lines

SUFFIXES = (".tar", ".tar.gz", ".tgz")
EXAMPLE = "expected a pattern such as {00000..00099}.tar"
TIMEOUT = 30  # seconds in which a server must answer, and send the next bytes


def is_streamed(spec: str) -> bool:
    """Whether data are named by URL or brace pattern, and not by the path of a folder or file."""
    return "://" in spec or (not Path(spec).exists() and bool(re.search(r"\{.*(\.\.|,).*\}", spec)))


def is_remote(url: str) -> bool:
    return "://" in url and not url.startswith(("file://", "local://"))


def shard_name(url: str) -> str:
    """What tells a shard apart wherever it lies: folders move, and signatures of URLs change."""
    return url.partition("?")[0].rpartition("/")[2]


def expand_urls(spec: str | Sequence[str]) -> list[str]:
    """-> one URL or local path per shard, in the order of the pattern, or by name in a folder.

    spec: a URL or path with braces or *, a folder, a .txt file with one of these per line, or a list of them.
    ValueError and FileNotFoundError name what is wrong with it.
    """
    if not isinstance(spec, str):
        urls = [url for part in spec for url in expand_urls(part)]
    elif is_streamed(spec):
        try:
            urls = [url for part in braceexpand(spec, escape=False) for url in _expand_stars(part)]
        except UnbalancedBracesError:
            raise ValueError(f"{spec}: its braces do not match; {EXAMPLE}") from None
    elif spec.endswith(".txt") and Path(spec).is_file():
        urls = expand_urls([line.strip() for line in read_lines(spec) if line.strip()])
    else:
        urls = _expand_stars(spec)
    if twice := [url for url, times in Counter(urls).items() if times > 1]:
        raise ValueError(f"{twice[0]}: named twice among the shards")
    return urls


def filesystem_of(url: str) -> tuple[Any, str]:
    """-> the file system of a URL, and the name of the file in it. ValueError where a package is missing."""
    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        options = {"get_client": _open_session}
    try:
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise ValueError(f"{url}: {one_line(error)}") from None
    except ValueError as error:  # a protocol that nobody knows
        raise ValueError(f"{url}: {one_line(error)}") from None


async def _open_session(**options: Any) -> Any:
    """A session of fsspec's engine of HTTP, for as many connections as there are lanes."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout, **options)


def _expand_stars(url: str) -> list[str]:
    """The shards of a folder or of a pattern with *; any other URL as it is."""
    if url.startswith(("http://", "https://")):
        if "*" in url or url.endswith("/"):
            raise ValueError(f"{url}: servers list no files; {EXAMPLE}")
        return [url]
    if "*" not in url and url.endswith(SUFFIXES):
        return [url]
    if url.startswith("hf://") and "*" not in url:  # hf://datasets/owner/name
        url = f"{url.rstrip('/')}/**/*.tar"
    system, path = filesystem_of(url)
    try:
        names = system.glob(path) if "*" in path else list(system.ls(path, detail=False))
    except Exception as error:  # each file system raises what its own library does
        raise FileNotFoundError(f"{url}: cannot be listed ({type(error).__name__}: {one_line(error)})") from None
    shards = sorted(name for name in map(str, names) if name.endswith(SUFFIXES))
    if not shards:
        raise FileNotFoundError(f"{url}: no shards there; expected {', '.join(SUFFIXES)}")
    return [system.unstrip_protocol(name) for name in shards] if "://" in url else shards
