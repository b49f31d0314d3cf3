"""A server on loopback that speaks OpenAI's wire format, for tests with the real client."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
LOGPROBS = [
    {"token": "le", "logprob": -0.5, "bytes": None, "top_logprobs": []},
    {"token": "ft", "logprob": -0.25, "bytes": None, "top_logprobs": []},
]


def completion(*messages, **choice):
    """A chat completion with a choice for each message."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "served",
        "usage": USAGE,
        "choices": [
            {"index": i, "finish_reason": "stop", "logprobs": None, "message": message, **choice}
            for i, message in enumerate(messages)
        ],
    }


def chunk(delta, index=0, **choice):
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "served",
        "choices": [{"index": index, "delta": delta, "finish_reason": None, **choice}],
    }


def said(content, **more):
    return {"role": "assistant", "content": content, **more}


CALL = {"id": "t1", "type": "function", "function": {"name": "go", "arguments": '{"to": 3}'}}
WHOLE = {
    "plain": completion(said("left"), logprobs={"content": LOGPROBS}),
    "tokens": {
        **completion(said("left"), logprobs={"content": LOGPROBS}, token_ids=[5, 6]),
        "prompt_token_ids": [1, 2, 3],
    },
    "tools": completion(said(None, tool_calls=[CALL]), finish_reason="tool_calls"),
    "refusal": completion(said(None, refusal="I won't.")),
    "three": completion(said("a"), said("b"), said(None, tool_calls=[CALL])),
}
CHUNKS = {
    "plain": [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "le"}, logprobs={"content": LOGPROBS[:1]}),
        chunk({"content": "ft"}, logprobs={"content": LOGPROBS[1:]}, finish_reason="stop"),
        {**chunk({}), "choices": [], "usage": USAGE},
    ],
    "tokens": [
        {**chunk({"role": "assistant", "content": ""}), "prompt_token_ids": [1, 2, 3]},
        chunk({"content": "le"}, logprobs={"content": LOGPROBS[:1]}, token_ids=[5]),
        chunk({"content": "ft"}, logprobs={"content": LOGPROBS[1:]}, token_ids=[6]),
        chunk({}, finish_reason="stop"),
    ],
    "tools": [
        chunk({"tool_calls": [{"index": 0, **CALL, "function": {"name": "go", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"to"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 3}"}}]}),
        chunk({}, finish_reason="tool_calls"),
    ],
    "three": [chunk({"content": text}, index=i) for text in ("x", "y") for i in (0, 1, 2)],
    "broken": [
        chunk({"content": "le"}),
        {"error": {"message": "the model fell over", "type": "server_error"}},
    ],
}
TEXT = {
    "id": "t1",
    "object": "text_completion",
    "created": 1,
    "model": "served",
    "usage": USAGE,
    "choices": [
        {
            "index": 0,
            "text": "left",
            "finish_reason": "length",
            "logprobs": {
                "tokens": ["token_id:5", "token_id:6"],
                "token_logprobs": [None, -0.25],
                "text_offset": [0, 2],
                "top_logprobs": None,
            },
            "prompt_token_ids": [1, 2],
        }
    ],
}
RESPONSE = {
    "id": "r1",
    "object": "response",
    "created_at": 1.0,
    "model": "served",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 0.5,
    "top_p": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "usage": None,
    "output": [
        {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "le", "annotations": []},
                {"type": "output_text", "text": "ft", "annotations": []},
            ],
        }
    ],
}
EVENTS = [
    {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, "output": []}},
    *(
        {
            "type": "response.output_text.delta",
            "sequence_number": i,
            "item_id": "m1",
            "output_index": 0,
            "content_index": 0,
            "delta": delta,
            "logprobs": [],
        }
        for i, delta in enumerate(("le", "ft"), start=1)
    ),
    {"type": "response.completed", "sequence_number": 3, "response": RESPONSE},
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, stream = asked["model"], asked.get("stream")
        if name == "refused":
            return self.send({"error": {"message": "no such model"}}, 404)
        if self.path == "/v1/chat/completions":
            return self.send_events(CHUNKS[name]) if stream else self.send(WHOLE[name])
        if self.path == "/v1/completions":
            return self.send_events([TEXT, TEXT]) if stream else self.send(TEXT)
        assert self.path == "/v1/responses"
        return self.send_events(EVENTS) if stream else self.send(RESPONSE)

    def send(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_events(self, events):
        lines = [f"event: {event['type']}\n" if "type" in event else "" for event in events]
        bodies = [
            f"{line}data: {json.dumps(event)}\n\n"
            for line, event in zip(lines, events, strict=True)
        ]
        data = "".join([*bodies, "data: [DONE]\n\n"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving():
    """The server's base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
