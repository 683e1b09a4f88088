"""LLaVA by a server that misbehaves over real HTTP: what it does costs its own pair, and a dead one ends the run."""

import json
import math
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import openai._base_client as openai_client
import pytest
from tiny.llava import picture

from llava import inference, server, server_client
from llava.analysis import ServerGone
from llava.scoring_config import ScoringConfig
from llava.server import ServerAnalyzer
from llava.server_client import normalized_url
from llava.server_replies import read_completion

ONCE = ScoringConfig(max_attempts=1)
BODIES = {
    "html": b"<html>502</html>",
    "empty": b"",
    "cut": b'{"choices": [{"message": {"cont',
    "no choices": b'{"choices": []}',
    "null": b'{"choices": [{"message": {"content": null}}], "usage": null}',
    "error under 200": b'{"error": {"message": "overloaded"}}',
    "error beside an answer": b'{"error": {"message": "cut"}, "choices": [{"message": {"content": "Score: 8"}}]}',
    "wrong types": b'{"choices": [{"message": {"content": 5}}]}',
    "reasoning alone": b'{"choices": [{"message": {"content": "", "reasoning_content": "hm"}}]}',
    "refusal": b'{"choices": [{"message": {"content": null, "refusal": "I cannot."}}]}',
}
FAULTS = [*BODIES, "400", "401 once", "429", "503", "reset", "short", "drip", "hang"]


def completion(asked):
    top = [{"token": token, "logprob": math.log(share)} for token, share in (("8", 0.5), (" Yes", 0.5))]
    choice = {"message": {"content": "Score: 8"}, "logprobs": {"content": [{"top_logprobs": top}]}}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode()


class Faulty(BaseHTTPRequestHandler):
    """`fault(text of the question)` names what is done in place of an answer."""

    fault = staticmethod(lambda question: "")
    models = b'{"data": [{"id": "tiny"}]}'

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(
            self.models if self.path == "/v1/models" else b"not found", 200 if self.path == "/v1/models" else 404
        )

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = type(self).fault(json.dumps(asked["messages"]))
        if fault in BODIES or not fault:
            return self.reply(BODIES.get(fault) or (b"" if fault else completion(asked)))
        if fault[:3].isdigit():
            return self.reply(b'{"error": "no"}', int(fault[:3]), {"Retry-After": "0.01"})
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return self.connection.close()
        if fault == "hang":
            return time.sleep(2)
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(40 if fault == "drip" else 1):
            self.wfile.write(b" ")
            time.sleep(0.05 if fault == "drip" else 0)
        return self.connection.close()

    def reply(self, body, status=200, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setattr(openai_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(server_client, "PAUSE", 0.01)
    stub = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Faulty,), {}))
    stub.handle_error = lambda *_: None
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    yield stub, f"http://127.0.0.1:{stub.server_port}/v1"
    stub.shutdown()
    stub.server_close()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "401 once"])
def test_a_fault_costs_its_own_pair(url, fault):
    stub, address = url
    stub.RequestHandlerClass.fault = staticmethod(lambda question: fault if "broken" in question else "")
    analyzer = ServerAnalyzer(address, "tiny", ONCE, timeout=0.4 if fault in ("drip", "hang") else 10)
    image = picture(0)
    found = dict(analyzer.analyze_many([(image, "good"), (image, "broken"), (image, "fine")], quiet=True))
    assert found[0]["score"] == found[2]["score"] == 8 and found[0]["p_yes"] == pytest.approx(0.5)
    assert address in found[1]["error"] and "\n" not in found[1]["error"]


def test_random_faults_are_asked_again(url):
    """A server that fails half of the time, in any way: every pair gets its score or a line, and most their score."""
    stub, address = url
    random, lock = Random(0), threading.Lock()

    def fault(question):
        with lock:
            passing = [fault for fault in FAULTS if fault not in ("400", "401 once", "drip", "hang", "null", "refusal")]
            return random.choice([*passing, *[""] * len(passing)])

    stub.RequestHandlerClass.fault = staticmethod(fault)
    analyzer = ServerAnalyzer(address, "tiny", ONCE)
    found = dict(analyzer.analyze_many([(picture(n % 5), str(n)) for n in range(40)], quiet=True))
    assert sorted(found) == list(range(40))
    assert all(("error" in result) != (result.get("score") == 8) for result in found.values())
    assert sum("error" not in result for result in found.values()) > 20


def test_a_dead_server_ends_the_run_and_the_command_goes_on(url, tmp_path, monkeypatch):
    stub, address = url
    monkeypatch.setattr(server, "MAX_FAILURES", 3)
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "in.csv").write_text("image,text\n" + "".join(f"a.png,text {n}\n" for n in range(9)))
    given = ["--server_url", address, "--model_id", "tiny", "--input", str(tmp_path / "in.csv"), "--max_attempts", "1"]
    given += ["--output", str(tmp_path / "out.jsonl")]
    stub.RequestHandlerClass.fault = staticmethod(lambda question: "503" if "text 4" in question else "")
    inference.main(given)
    asked = []
    stub.RequestHandlerClass.fault = staticmethod(lambda question: asked.append(question) or "503")
    (tmp_path / "in.csv").write_text("image,text\n" + "".join(f"a.png,text {n}\n" for n in range(20)))
    with pytest.raises(ServerGone, match=r"3 pairs in a row .* the same command again") as caught:
        inference.main(given)
    assert len(str(caught.value).splitlines()) == 1 and not any("text 3" in question for question in asked)
    assert sum("Describe" not in question for question in asked) == 0 and len(asked) == 3 * (server_client.RETRIES + 1)
    stub.RequestHandlerClass.fault = staticmethod(lambda question: "")
    inference.main(given)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(int(row["key"]) for row in rows) == list(range(1, 21)) and all(row["score"] == 8 for row in rows)


def test_a_wrong_key_ends_the_run_at_once(url):
    stub, address = url
    stub.RequestHandlerClass.fault = staticmethod(lambda question: "401")
    analyzer = ServerAnalyzer(address, "tiny", ONCE, requests=1)
    with pytest.raises(ServerGone, match="OPENAI_API_KEY"):
        list(analyzer.analyze_many([(picture(n), "x") for n in range(3)], quiet=True))


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/chat/completions", "{root}", "{root}/", "{bare}"])
def test_forms_of_the_address(url, form):
    root = url[1].removesuffix("/v1")
    found = ServerAnalyzer(form.format(url[1], root=root, bare=root.removeprefix("http://")), "tiny")
    assert found.url == url[1]


@pytest.mark.parametrize("models", [b"{}", b"null", b"<html>", b'{"data": [{"id": "other"}], "has_more": true}'])
def test_a_list_of_models_is_not_needed(url, models):
    url[0].RequestHandlerClass.models = models
    assert ServerAnalyzer(url[1], "tiny", ONCE).analyze_image(picture(0), "x")["score"] == 8


@pytest.mark.parametrize(
    "address", ["", "http://", "ftp://a/v1", "http://a b/v1", "http://a:99999/v1", "http://a/v1?x=1"]
)
def test_wrong_addresses(address):
    with pytest.raises(ValueError, match="--server_url"):
        normalized_url(address)


@pytest.mark.parametrize("value", ["-" + "9" * 4000, "-1e400", "false", "NaN", "1e400"])
def test_log_probabilities_of_any_size(value):
    choice = (
        '{"message": {"content": "8"}, "logprobs": {"content": [{"top_logprobs": [{"token": "8", "logprob": %s}]}]}}'
    )
    assert read_completion(f'{{"choices": [{choice % value}]}}'.encode()).next_tokens is None
