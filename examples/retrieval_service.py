"""An index of images as a service: GET /?text=WORDS or POST an image -> JSON of what is most alike.

python retrieval/build_index.py --index_dir features/index --image_dir FOLDER --vit_checkpoint WEIGHTS
python examples/retrieval_service.py features/index [--port 8000]
curl "http://127.0.0.1:8000/?text=a+red+house&k=3"
curl --data-binary @a.png "http://127.0.0.1:8000/?k=3"
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


class Handler(BaseHTTPRequestHandler):
    def do_GET(self, images: tuple[Path, ...] = ()) -> None:
        query = parse_qs(urlsplit(self.path).query)
        try:
            k = min(100, max(1, int(query.get("k", ["10"])[0])))
            if not images and "text" not in query:
                raise ValueError("give ?text=WORDS, or POST an image")
            (scores, *_), (paths, *_) = self.searcher.search(images, query["text"][:1] if not images else [], k)
            status, content = 200, [{"image": str(path), "similarity": score} for path, score in zip(paths, scores)]
        except (ValueError, OSError) as error:
            status, content = 400, [{"error": str(error)}]
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.end_headers()
        self.wfile.write(json.dumps(content, ensure_ascii=False).encode())

    def do_POST(self) -> None:
        with tempfile.NamedTemporaryFile(buffering=0) as file:
            file.write(self.rfile.read(min(20_000_000, int(self.headers.get("Content-Length") or 0))))
            self.do_GET((Path(file.name),))


@tool
def main(index_dir: str, *, port: int = 8000) -> None:
    Handler.searcher = open_index(index_dir)
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()  # this machine only, one query at a time


if __name__ == "__main__":
    run_script(main)
