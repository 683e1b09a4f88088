"""Texts that leave this machine: its paths are cut down to their last part, passwords and tokens are removed.

"--data (/home/me/cats), https://me:pw@host/x?token=abc"   ->   "--data (cats), https://***@host/x?token=***"
"""

import re
from pathlib import Path

HIDDEN = "***"
SECRET_NAME = (
    r"(?:(?:access|auth|api|hf|hub|bearer|refresh|id)[_-]?)?token"
    r"|[\w-]*(?:secret|password|passwd|api_?key|credential)s?"
)
TOKENS = (  # of services, which have a form of their own
    r"\b(?:hf_[a-z0-9]{16,}|api_org_[a-z0-9]{16,}|sk-[\w-]{20,}|gh[a-z]_[a-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}|AKIA[A-Z0-9]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
TOKEN_BYTES = re.compile(TOKENS.encode(), re.IGNORECASE)
HOME_BYTES = re.compile(rb"(?:/home|/Users|[A-Za-z]:\\{1,2}Users)[/\\]{1,2}[\w.-]+", re.IGNORECASE)
SECRETS = re.compile(
    r"""(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@"'<>]+@"""  # user:password@ of an address
    rf"""|(?P<key>\b(?:{SECRET_NAME}|[\w-]*signature|sig|bearer)["']?(?:\s*[=:]\s*|\s+(?=[\w.-]*\d))["']?)"""
    r"""(?!\*\*\*)[\w.~+/%-]{8,}=*"""
    rf"|{TOKENS}",
    re.IGNORECASE,
)
PART = r"""[^\s"'`<>()\[\]{},;|:*?\\/]"""  # a letter of a part of a path, in the middle of a text
ROOTS = "home|Users|root|data|mnt|media|srv|tmp|var|opt|usr|etc|nfs|scratch|work|workspace|gpfs|lustre|Volumes|private"
PATHS = re.compile(
    r"""(?<=["'`])(?:file:/|~[\w.-]*[\\/]|[A-Za-z]:[\\/]|\\\\|/[^/\s"'`]*/)[^"'`\n]+(?=["'`])"""  # with spaces
    rf"""|file:/+(?:{PART}|[\\/:])*"""
    rf"""|(?<![\w:/\\])(?://|\\\\)[\w.$?-]+[\\/](?:{PART}|[\\/:])*"""  # //server/share, \\server\share
    rf"""|(?<![A-Za-z0-9])[A-Za-z]:[\\/](?:{PART}|[\\/])*"""  # C:\, C:/
    rf"""|(?<![\w~/])~[\w.-]*[\\/](?:{PART}|[\\/])*"""
    rf"""|(?<![\w./\\~])\.\.?/(?:{PART}|/)*{PART}"""
    rf"""|(?:(?<![\w/\\~<])/{PART}+|(?<=[^\x00-\x7f])/(?:{ROOTS}))/(?:{PART}|/)*{PART}/?"""  # /home/me; in Chinese text
    r"""|(?<![\w$])\$\{?(?:HOME|USER|SCRATCH|WORK|TMPDIR)\}?/[^\s"'`<>]*"""
)
WHOLE = re.compile(r"(?:file:/|~[\w.-]*[\\/]|\.\.?/|[A-Za-z]:[\\/]|//[\w.$?-]+/|\\\\|/[^/\s]+/)[^\n]*")
HOMES = re.compile(r"(?i)(?:^|[\\/:])(?:home|users|documents and settings)[\\/][^\\/]+[\\/]*$|^~[^\\/]*[\\/]*$")
TEMPLATE = re.compile(r"\{%|\{\{")  # Jinja, whose tokens look like paths


def scrub(text: str) -> str:
    """A text without paths of this machine and without secrets; everything around them stays."""
    text = hide_secrets(text)
    if TEMPLATE.search(text):
        return text
    if WHOLE.fullmatch(text):  # a path alone may have spaces in it
        return _last_part(text)
    return PATHS.sub(lambda match: _last_part(match[0]) + "." * match[0].endswith("."), text)  # of a sentence


def hide_secrets(text: str) -> str:
    def hide(match: re.Match[str]) -> str:
        if match["scheme"]:
            return f"{match['scheme']}{HIDDEN}@" if not match[0].endswith(f"//{HIDDEN}@") else match[0]
        return (match["key"] or "") + HIDDEN

    return SECRETS.sub(hide, text)


def is_local_path(text: str) -> bool:
    """Whether a text names a path of this machine: absolute, from ~, . or .., or a relative one that exists."""
    if TEMPLATE.search(text):
        return False
    return bool(PATHS.search(text) or WHOLE.fullmatch(text)) or (
        "/" in text.strip("/") and len(text) < 256 and Path(text).exists()
    )


def is_secret_name(name: str) -> bool:
    """Whether the value of a setting of this name is a password or a token."""
    return bool(re.fullmatch(SECRET_NAME, name, re.IGNORECASE))


def _last_part(path: str) -> str:
    """Of a path; ~ for a home folder, whose name is that of a person."""
    if HOMES.search(path.rstrip(".")):
        return "~"
    return re.split(r"[\\/]", path.rstrip("\\/."))[-1] or "~"
