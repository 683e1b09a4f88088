"""A web page over the five systems: a tab for each whose weights are given.

    pip install -r requirements-app.txt
    python app.py --style checkpoints/demo/best.pth --clip model-checkpoint/demo/best_model.pth --folder photos \\
        --llava checkpoints/llava_demo --blip2 checkpoints/blip2_gated_demo/best.pt

flags -> Models (read when first asked) -> page -> http://127.0.0.1:7860, for this machine alone

compare styles; search a folder or an index by image or words; match texts, with heat maps; describe and score; what a
BLIP-2 would answer if it were told of another style.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

from common.cli.errors import run_script

PORT = 7860


def main(argv: list[str], block: bool = True) -> Any:
    """-> the running page, a gradio.Blocks; `block` waits until it is stopped by Ctrl+C."""
    args = read_arguments(argv)
    from webpage.models import Models  # five systems: not for --help

    models = Models(**{name: getattr(args, name) for name in Models.__dataclass_fields__})
    models.check()
    if find_spec("gradio") is None:
        raise ValueError("gradio is not installed; pip install -r requirements-app.txt")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import: no calls home for versions, no counting of users
    import gradio as gr

    from webpage.page import FONTS, STYLE, build_page

    page = build_page(models).queue(max_size=32)
    if not is_loopback(args.host):
        print(
            f"warning: --host {args.host}: everybody who reaches this machine can use the page and see the images of "
            "--index or --folder; there is no password",
            file=sys.stderr,
        )
    page.launch(
        server_name=args.host,
        server_port=args.port or None,
        max_file_size=args.max_upload_mb * 2**20,
        quiet=True,
        prevent_thread_lock=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        theme=gr.themes.Default(**FONTS),
        css=STYLE,
    )
    print(f"the page is at {page.local_url}  (Ctrl+C ends it)", flush=True)
    if block:
        page.block_thread()
    return page


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="app.py", description=__doc__.split("\n\n")[0], exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--style", default="", help="a style encoder's .pth: compare styles")
    parser.add_argument("--clip", default="", help="best_model.pth, or a Hugging Face CLIP: match texts, heat maps")
    parser.add_argument("--index", default="", help="what retrieval/build_index.py made: search it")
    parser.add_argument("--index_weights", default="", help="where its weights are, if not where the index found them")
    parser.add_argument("--folder", default="", help="images to search with --clip; vectors are kept in .image_index")
    parser.add_argument("--llava", default="", help="folder or name of an image-text model: describe and score")
    parser.add_argument("--llava_adapter", default="", help="folder of a LoRA adapter for it")
    parser.add_argument("--llava_language", default="en", help="of its prompts: en or zh; default: %(default)s")
    parser.add_argument("--blip2", default="", help="best.pt of blip2_gated/train.py: answers under another style")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: the whole network; default: %(default)s")
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s; 0: the first free one")
    parser.add_argument("--max_upload_mb", type=int, default=20, help="largest file to send; default: %(default)s")
    try:
        args, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
    if unknown:
        raise ValueError(f"{unknown[0]}: no such flag; --help lists them")
    if not 0 <= args.port <= 65535 or args.max_upload_mb < 1:
        raise ValueError("--port: expected 0 to 65535; --max_upload_mb: 1 or more")
    return args


if __name__ == "__main__":
    run_script(main)
