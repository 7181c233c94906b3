"""How a client program is asked and answers: questions on its standard input, each a feature and a model, and a line
of JSON for each in the file `TOLD`. No client is told what is expected of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

URL = os.environ["GATEWAY_URL"]
KEY = os.environ["GATEWAY_KEY"]
PNG = os.environ["PNG"]

HI = "Hello!"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "celsius": {"type": "integer"}},
    "required": ["city", "celsius"],
    "additionalProperties": False,
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
REMEMBER, WHICH = "Remember violet.", "Which colour was it?"
RESULT = "rain, 4 degrees"
MOST_S = 60
"""For one run of a command."""


def tell(functions):
    """Answer every question by the function of its name: `ask(model, key)` returns what the client saw."""
    with Path(os.environ["TOLD"]).open("a") as told:
        for question in json.load(sys.stdin):
            ask = functions.get(question["ask"]) or functions.get(question["otherwise"])
            answer = answer_of(ask, question) if ask else {"missing": True}
            told.write(json.dumps({**question, **answer}) + "\n")
            told.flush()


def answer_of(ask, question):
    try:
        return {"saw": ask(question["model"], question["key"])}
    except Exception as error:
        return {"raised": described(error)}


def described(error):
    """Describe an exception as programs see it."""
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or {}
    return {
        "type": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "retry_after": headers.get("retry-after"),
        "message": str(error)[:400],
    }


def run(command, said, environment):
    """Run a command with `said` on its standard input, and return its exit code and what it wrote."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        text=True,
    ) as process:
        try:
            wrote, _ = process.communicate(said, timeout=MOST_S)
        except subprocess.TimeoutExpired:
            process.kill()  # what it has started goes when this program does
            raise
    return process.returncode, wrote


class CommandFailed(Exception):
    """A command that ended with an error, and the HTTP status that it named, if any."""

    def __init__(self, said, status=None):
        super().__init__(said)
        self.status_code = status
