"""Splits of real styles by domain and by family, for questions about styles that training has not seen.

A domain is a folder of style folders. A family is what one maker drew: variants of one design (bold, solid, duotone)
never lie on both sides of a split, and neither do different designs of one maker where they are known to be his.
"""

from pathlib import Path

import numpy as np

# Beginnings of style names, for each family of more than one style.
FAMILIES = {
    "openmoji": ("openmoji",),
    "fluent": ("fluent",),
    "phosphor": ("ph_",),
    "streamline": ("plump", "sharp", "core", "streamline_core"),
    "cyber": ("cyber",),
    "kameleon": ("kameleon",),
    "pepicons": ("pepicons",),
    "icon_park": ("icon_park",),
    "arapey": ("arapey",),
    "compagnon": ("compagnon",),
    "inter": ("inter",),
    "aenigma": ("obloquy", "plasma_drip", "encapsulate", "dblayer2", "persuasion", "nominal", "jolt_caffeine"),
    "wiegel": ("fette_fraktur", "blankenburg"),
    "deepin": ("bloom", "deepin_vintage"),
    "ubuntu": ("suru", "yaru"),
}


def styles_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def family_folds(styles: list[str], folds: int = 3, seed: int = 7) -> list[list[str]]:
    """Whole families in folds of about equal size, the largest families first."""
    families: dict[str, list[str]] = {}
    for style in styles:
        family = next((name for name, starts in FAMILIES.items() if style.startswith(starts)), style)
        families.setdefault(family, []).append(style)
    order = list(families)
    np.random.default_rng(seed).shuffle(order)
    parts: list[list[str]] = [[] for _ in range(folds)]
    for family in sorted(order, key=lambda name: -len(families[name])):
        min(parts, key=len).extend(families[family])
    return parts


def link_styles(folders: list[Path], target: Path) -> Path:
    """One data folder with links to many style folders."""
    target.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        link = target / folder.name
        if not link.exists():
            link.symlink_to(folder.resolve(), target_is_directory=True)
    return target
