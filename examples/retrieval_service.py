"""An index of images as a service: GET /?text=WORDS or POST an image -> JSON of what is most alike.

    python retrieval/build_index.py --index_dir features/index --image_dir FOLDER --vit_checkpoint WEIGHTS
    python examples/retrieval_service.py features/index [--port 8000]
    curl "http://127.0.0.1:8000/?text=a+red+house&k=3"
    curl --data-binary @a.png "http://127.0.0.1:8000/?k=3"

From this machine only, one query at a time.
"""

import json
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from retrieval.search import open_index

LARGEST, MOST = 20_000_000, 100  # bytes of an image, results of a query


def make_server(index: str, port: int = 8000) -> HTTPServer:
    searcher = open_index(index)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            with tempfile.NamedTemporaryFile() as file:
                file.write(self.rfile.read(min(LARGEST, int(self.headers.get("Content-Length") or 0))))
                file.flush()
                self.answer(Path(file.name))

        def answer(self, *images: Path) -> None:
            query, status = parse_qs(urlsplit(self.path).query), 200
            found: object
            try:
                if not images and "text" not in query:
                    raise ValueError("give ?text=WORDS, or POST an image")
                k = min(MOST, max(1, int(query.get("k", ["10"])[0])))
                (scores, *_), (paths, *_) = searcher.search(images, [] if images else query["text"][:1], k)
                found = [{"image": str(path), "similarity": score} for path, score in zip(paths, scores)]
            except (ValueError, OSError) as error:
                found, status = {"error": str(error)}, 400
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.end_headers()
            self.wfile.write(json.dumps(found, ensure_ascii=False).encode())

    return HTTPServer(("127.0.0.1", port), Handler)


@tool
def main(index_dir: str, *, port: int = 8000) -> None:
    make_server(index_dir, port).serve_forever()


if __name__ == "__main__":
    run_script(main)
