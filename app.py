"""Web page over the five systems: a tab for each whose weights are given.

    pip install -r requirements-app.txt
    python app.py --style checkpoints/demo/best.pth --clip model-checkpoint/demo/best_model.pth --folder photos \\
        --llava checkpoints/llava_demo --vitp checkpoints/vitp_demo --blip2 checkpoints/blip2_gated_demo/best.pt

flags -> Models (loaded when first used) -> page -> http://127.0.0.1:7860, for this machine alone

compare styles; search a folder or an index by image or words; match texts, with heat maps; describe and score; ask a
question about an image; the answers of a BLIP-2 conditioned on another style.
"""

import os
import socket
import sys
from collections.abc import Sequence
from errno import EADDRINUSE
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from jsonargparse.typing import NonNegativeInt, PositiveInt

from common.cli.errors import printable, run_script
from common.cli.tool_parser import tool
from webpage.flags import ModelFlags
from webpage.models import Models
from webpage.uploads import Uploads


@tool
def open_page(
    *,
    flags: ModelFlags,
    host: str = "127.0.0.1",  # 0.0.0.0: reachable from the whole network
    port: NonNegativeInt = 7860,  # 0: any free one
    hosts: Sequence[str] = (),  # further names that visitors type for this machine, as behind a proxy
    max_upload_mb: PositiveInt = 20,  # largest upload
    upload_quota_mb: PositiveInt = 1000,  # of all uploads of an hour together, and of all results
) -> Any:
    """-> the running page, a gradio.Blocks."""
    if port > 65535:
        raise ValueError(f"--port {port}: expected at most 65535")
    flags.check()
    if find_spec("gradio") is None:
        raise ValueError("gradio is not installed; pip install -r requirements-app.txt")
    listening = listen(host, int(port))
    uploads = Uploads(upload_quota_mb * 2**20)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import: no version checks, no usage statistics
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.uploads)  # read when components are made and when files come in
    from webpage.page import build_page
    from webpage.server import serve

    if not is_loopback(host):
        print(
            f"warning: --host {host}: everybody who reaches this machine can use the page and see the images of "
            "--index or --folder; there is no password",
            file=sys.stderr,
        )
    page = build_page(Models(**vars(flags)), uploads)
    serve(page, uploads, listening, host, list(hosts), max_upload_mb * 2**20)
    if folder := flags.shown_folder():
        print(f"visitors can see images of {printable(folder)}")
    print(f"the page is at {page.local_url}  (Ctrl+C ends it)", flush=True)
    return page


def listen(host: str, port: int) -> socket.socket:
    """ValueError for a port that is taken, and for a host that is none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == EADDRINUSE:
            raise ValueError(
                f"--port {port}: another program listens there, perhaps an earlier app.py; end it, or give another "
                "port: --port 0 takes any free one"
            ) from None
        raise ValueError(f"--host {host} --port {port}: {error.strerror or error}") from None


def main(argv: list[str]) -> None:
    open_page(argv).block_thread()


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


if __name__ == "__main__":
    run_script(main)
