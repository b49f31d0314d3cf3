"""A real S3 API server on this machine, whose answers a test can hold up or refuse."""

import threading

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "decisions"
KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}


class Quiet(WSGIRequestHandler):
    def log(self, *args):
        pass


class S3Server:
    """moto's server in a thread.

    Attributes:
        before: called with each request's WSGI environment before it is answered; what it
            returns, if anything, is the status line of the answer, such as "503 Slow Down".
        seen: (method, path, query) of each request.
    """

    def __init__(self):
        self._answer = DomainDispatcherApplication(create_backend_app)
        self.before = lambda environ: None
        self.seen = []
        self._server = None
        self.port = 0
        self.start()
        self.client.create_bucket(Bucket=BUCKET)

    def start(self):
        self._server = make_server(
            "127.0.0.1", self.port, self._application, threaded=True, request_handler=Quiet
        )
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def _application(self, environ, start_response):
        self.seen.append(
            (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        )
        refused = self.before(environ)
        if refused:
            start_response(refused, [("Content-Length", "0")])
            return [b""]
        return self._answer(environ, start_response)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
            **KEYS,
        )

    def url(self, prefix, **parameters):
        given = {
            "endpoint_override": f"127.0.0.1:{self.port}",
            "scheme": "http",
            "region": "us-east-1",
            "connect_timeout": 1,
            "request_timeout": 3,
            **parameters,
        }
        return f"s3://{BUCKET}/{prefix}?" + "&".join(f"{k}={v}" for k, v in given.items())

    def objects(self, prefix=""):
        """Name -> size of every object that is no directory's marker."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {item["Key"]: item["Size"] for item in found if not item["Key"].endswith("/")}
