"""LLaVA by an OpenAI-compatible server: a stub that answers like vLLM."""

import base64
import io
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai._base_client as openai_client
import pytest
from PIL import Image
from tiny.llava import picture

from llava import inference
from llava.scoring_config import ScoringConfig
from llava.server import ServerAnalyzer


class Stub(BaseHTTPRequestHandler):
    """Describes; scores 12 first and then 7; is 80 % sure of Yes; of scores 1 (which is 10 in half of the cases), 5."""

    asked: list[dict] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply({"data": [{"id": "tiny"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(asked)
        question = asked["messages"][-1 if asked["messages"][-1]["role"] == "user" else -2]["content"][-1]["text"]
        if "explode" in question:
            self.reply({"error": "out of memory"}, 500)
            return
        begun = asked["messages"][-1]["content"] if asked.get("continue_final_message") else ""
        content, logprobs = "A noisy picture.", {}
        if asked.get("logprobs"):
            logprobs = (
                {" Yes": 0.8, " No": 0.2} if not begun else {"0": 0.5} if begun == "Score: 1" else {"1": 0.6, "5": 0.4}
            )
        elif "Score" in question:
            attempts = sum(one["messages"] == asked["messages"] and not one.get("logprobs") for one in self.asked)
            content = "Score: 12" if attempts % 2 else "Score: 7\nAnalysis: noise"
        top = [{"token": token, "logprob": math.log(share)} for token, share in logprobs.items()]
        choice = {"message": {"content": content}, "logprobs": {"content": [{"top_logprobs": top}]}}
        self.reply({"choices": [choice], "usage": {"prompt_tokens": 30, "completion_tokens": 4}})

    def reply(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(openai_client, "INITIAL_RETRY_DELAY", 0.01)
    Stub.asked = []
    stub = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{stub.server_port}/v1"
    stub.shutdown()


def test_the_same_interface(server):
    found = ServerAnalyzer(server, "tiny").analyze_image(picture(0), "noise")
    assert (found["description"], found["score"], found["attempts"], found["analysis"]) == (
        "A noisy picture.",
        7,
        2,
        "noise",
    )
    assert found["p_yes"] == pytest.approx(0.8) and found["expected_score"] == pytest.approx(
        0.3 * 1 + 0.3 * 10 + 0.4 * 5
    )
    assert found["tokens"] == {"description": 4, "prompt": 30, "analysis": 4} and "noise" in found["prompt"]
    described, scored = Stub.asked[0], Stub.asked[1]
    assert described["temperature"] == 0 and scored["temperature"] == 0.3 and scored["top_p"] == 0.9
    url = described["messages"][0]["content"][0]["image_url"]["url"]
    image = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    assert image.size == (40, 40) and image.tobytes() == picture(0).tobytes()


def test_many_with_some_bad_ones(server, tmp_path):
    analyzer = ServerAnalyzer(server, "tiny", ScoringConfig(max_attempts=1), requests=3)
    image = picture(0)
    pairs = [(image, "a"), (image, ""), (tmp_path / "absent.png", "b"), (picture(1), "explode"), (image, "c")]
    found = dict(analyzer.analyze_many(pairs, quiet=True))
    assert sorted(found) == [0, 1, 2, 3, 4] and found[0]["score"] is None and found[4]["p_yes"] == pytest.approx(0.8)
    for place, words in ((1, "empty"), (2, "absent.png"), (3, "HTTP 500")):
        assert words in found[place]["error"]
    describing = [one for one in Stub.asked if "Describe" in one["messages"][0]["content"][1]["text"]]
    assert len(describing) == 2  # one an image


def test_from_the_command_line(server, tmp_path):
    picture(0).save(tmp_path / "a.png")
    given = ["--server_url", server, "--image", str(tmp_path / "a.png"), "--text", "noise", "--json"]
    assert inference.main([*given, "--model_id", "tiny"])[0]["score"] == 7
    with pytest.raises(ValueError, match="which has tiny"):
        inference.main([*given, "--model_id", "large"])
    with pytest.raises(ValueError, match="running") as caught:
        inference.main([*given[2:], "--server_url", "http://127.0.0.1:9/v1", "--model_id", "tiny"])
    assert len(str(caught.value).splitlines()) == 1
