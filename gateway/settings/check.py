"""Checks what is right by itself against everything else: names that lead nowhere, circles, the order of the chain."""

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from msgspec import Struct

from gateway.core.call import PATHS
from gateway.core.principal import Limits
from gateway.core.secret import Secret, flaw
from gateway.middleware.limits import LimitsOptions
from gateway.middleware.retry import JOINS, RetryOptions
from gateway.settings import plugins
from gateway.settings.complaints import Path, near
from gateway.settings.document import Complaints, Node
from gateway.settings.keys import digest_of
from gateway.settings.schema import RouteSettings, ServiceTimeouts, Settings, TimeoutSettings, is_database, is_redis

OWN_PATHS = frozenset({"/chat/completions", "/messages", "/messages/count_tokens", "/responses", *PATHS})
"""Below `/v1`, beside `/models`."""
MOST_CURED = 200
"""Unknown names that get a suggestion: to look for one among thousands takes milliseconds each."""

TAKE_IT_OUT = "take it out of the secret"


class Found(Struct, frozen=True):
    """What could be read, and what of it is only a stand-in."""

    settings: Settings
    rooms: list[tuple[str, Mapping[str, str]]]
    """The middlewares' names, empty where there is none, and who must stand around each, with the reason."""
    broken: frozenset[Path]
    cracked: frozenset[Path]
    """All that something broken is within."""

    def sound(self, *path: str | int) -> bool:
        """Tell whether what stands at `path` was really written so."""
        return not self.broken or not any(path[:n] in self.broken for n in range(1, len(path) + 1))

    def whole(self, *path: str | int) -> bool:
        """Tell whether nothing is broken at `path` nor anywhere within it."""
        return self.sound(*path) and path not in self.cracked


def check(found: Found, root: Node, complaints: Complaints) -> None:
    """Note every mistake that shows only when parts are looked at together; none that follows from another."""
    _Check(found, root, complaints).all()


class _Check:
    def __init__(self, found: Found, root: Node, complaints: Complaints) -> None:
        self._found = found
        self._settings = found.settings
        self._root = root
        self._complaints = complaints
        models = (root.items or {}).get("models")
        providers = (root.items or {}).get("providers")
        self._all_models = found.sound("models") and not (models and models.lost)
        self._all_providers = found.sound("providers") and not (providers and providers.lost)
        self._models = dict.fromkeys(models.items or ()) if models else {}
        """Every name, those whose route is broken too: they exist."""
        self._names = dict.fromkeys(self._models)
        """What a key may be for: models, and what names no model."""
        self._names |= dict.fromkeys(f"v1/{path}" for path in found.settings.forward)
        self._names |= dict.fromkeys(f"proxy/{name}" for name in found.settings.proxy)
        self._patterns = [name for name in self._models if name.endswith("*")]
        self._opening: dict[str, bool] = {}

    def all(self) -> None:
        """Check everything."""
        self._addresses()
        self._providers()
        for name, route in self._settings.models.items():
            if self._found.sound("models", name):
                self._route(name, route)
        self._circles()
        self._forward()
        self._proxy()
        self._keys()
        self._chain()

    def _wrong(self, path: Path, problem: str, cure: str = "") -> None:
        node, written = self._root.find(path)
        self._complaints.add((node.line, node.column), written, problem, cure)

    def _near(self, name: str, names: Iterable[str]) -> str:
        return near(name, names) if len(self._complaints) < MOST_CURED else ""

    def _line(self, path: Path, secret: str) -> bool:
        """Tell whether `secret` can be sent as it is written, and complain where it cannot."""
        problem = flaw(secret)
        if problem:
            self._wrong(path, problem, TAKE_IT_OUT)
        return not problem

    # ── the server and its stores

    def _addresses(self) -> None:
        settings, sound = self._settings, self._found.sound
        redis = settings.redis.reveal() if sound("redis") else ""
        if redis and not is_redis(redis) and self._line(("redis",), redis):
            self._wrong(("redis",), "expected an address like redis://host:6379/0, rediss://… or unix://…")
        database = settings.database.reveal() if sound("database") else ""
        if database and not is_database(database) and self._line(("database",), database):
            self._wrong(("database",), "expected an address like sqlite:///gateway.db or postgresql://…")
        if sound("server", "max_body") and settings.server.max_body < 1:
            self._wrong(("server", "max_body"), "nothing at all could be sent")

    # ── providers and models

    def _providers(self) -> None:
        for name, options in self._settings.providers.items():
            if re.search(r"[/*\s]", name) or not name:
                self._wrong(("providers", name), 'a provider\'s name cannot contain "/", "*" or spaces')
            for option in options.__struct_fields__:
                value = getattr(options, option)
                path = ("providers", name, option)
                if isinstance(value, Secret) and option not in options.documents and self._found.sound(*path):
                    self._line(path, value.reveal())

    def _route(self, name: str, route: RouteSettings) -> None:
        path = ("models", name)
        if "*" in name[:-1]:
            self._wrong(path, f'only the end of a model\'s name may be a "*", which "{name}" has elsewhere')
        if self._found.sound(*path, "deployments"):
            self._deployments(name, route)
        if self._found.sound(*path, "timeouts"):
            self._timeouts((*path, "timeouts"), route.timeouts)
        for field in ("fallbacks", "context_fallbacks"):
            if self._found.sound(*path, field):
                for i, fallback in enumerate(getattr(route, field)):
                    if self._found.sound(*path, field, i):
                        self._fallback((*path, field, i), fallback)
        if route.hedge is not None and len(route.deployments) == 1 and not route.fallbacks and self._found.whole(*path):
            self._wrong((*path, "hedge"), "there is nobody else who could be asked", "add a deployment, or a fallback")

    def _deployments(self, name: str, route: RouteSettings) -> None:
        path = ("models", name, "deployments")
        if not route.deployments:
            self._wrong(("models", name), "nobody can answer for it", "give it deployments: [provider/model]")
            return
        targets: dict[str, int] = {}
        for i, deployment in enumerate(route.deployments):
            if not self._found.sound(*path, i):
                continue
            if self._found.sound(*path, i, "target"):
                self._target((*path, i, "target"), deployment.target, name)
                if targets.setdefault(deployment.target, i) != i:
                    cure = "keep one of them, with the weight of both"
                    self._wrong((*path, i), f'"{deployment.target}" is here a second time', cure)
            if deployment.rejects and route.unsupported == "pass" and self._found.whole(*path, i):
                problem = "has no effect, because the route passes everything on (`unsupported: pass`)"
                self._wrong((*path, i, "rejects"), problem, "leave one of the two out")
            if self._found.sound(*path, i, "timeouts"):
                self._timeouts((*path, i, "timeouts"), deployment.timeouts)
                if deployment.timeouts.total is not None:
                    cure = "write it under the route's own timeouts"
                    self._wrong((*path, i, "timeouts", "total"), "a deployment has no total of its own", cure)
        if self._found.whole(*path) and self._found.sound("models", name, "order"):
            self._weights(name, route)

    def _weights(self, name: str, route: RouteSettings) -> None:
        path = ("models", name, "deployments")
        if all(deployment.weight == 0 for deployment in route.deployments):
            self._wrong(path, "every weight is 0, so none would be chosen", "give at least one of them a weight")
        elif route.order not in ("weighted", "least_busy"):
            for i, deployment in enumerate(route.deployments):
                if deployment.weight > 1 or (deployment.weight == 0 and route.order == "as_written"):
                    cure = "add `order: weighted` to the route"
                    self._wrong((*path, i, "weight"), f"a weight has no effect in the order {route.order}", cure)

    def _target(self, path: Path, target: str, name: str) -> None:
        provider, slash, model = target.partition("/")
        if not (provider and slash and model):
            example = f"{provider}/<model>" if provider in self._settings.providers else "openai/gpt-4o-mini"
            self._wrong(path, f'expected provider/model, got "{target}"', f"such as {example}")
            return
        if self._all_providers and provider not in self._settings.providers:
            self._wrong(path, f'unknown provider "{provider}"', self._provider_cure(provider))
        if "*" in model and not name.endswith("*"):
            cure = f'name the route "{name}*", or name one model'
            self._wrong(path, f'the "*" stands for nothing, because "{name}" has none', cure)

    def _provider_cure(self, provider: str) -> str:
        cure = self._near(provider, self._settings.providers)
        if not cure.startswith("did") and (provider in plugins.PROVIDERS or provider in plugins.vendor_names()):
            return f'add "{provider}:" under `providers:`'
        return cure or "there are no providers"

    def _timeouts(self, path: Path, timeouts: TimeoutSettings | ServiceTimeouts) -> None:
        for name in ("connect", "headers", "first_token", "idle", "total"):
            if getattr(timeouts, name, None) == 0:
                self._wrong(
                    (*path, name), "with no time at all, every call would fail", "leave it out, or say how long"
                )

    def _fallback(self, path: Path, fallback: str) -> None:
        if "*" in fallback:
            self._wrong(path, f'"{fallback}" is a pattern', "a fallback is one model")
        elif self._all_models and self._led_to(fallback) is None:
            self._wrong(path, f'unknown model "{fallback}"', self._near(fallback, self._models))

    def _led_to(self, model: str) -> str | None:
        """Return the name of the route that `model` leads to: itself, or the longest pattern."""
        if model in self._models:
            return model
        fitting = [name for name in self._patterns if model.startswith(name[:-1]) and len(model) >= len(name)]
        return max(fitting, key=len, default=None)

    def _circles(self) -> None:
        """Complain of each circle of fallbacks, where it closes."""
        done: set[str] = set()
        for start in self._settings.models:
            way = {} if start in done else {start: None}  # in order, and asked for each name: a list would be searched
            waiting = [self._next(name) for name in way]
            while waiting:
                i, name = next(waiting[-1], (-1, ""))
                if not name:
                    waiting.pop()
                    done.add(way.popitem()[0])
                elif name in way:
                    names = list(way)
                    circle = " -> ".join([*names[names.index(name) :], name])
                    self._wrong(("models", names[-1], "fallbacks", i), f"these fallbacks go in a circle: {circle}")
                elif name not in done:
                    way[name] = None
                    waiting.append(self._next(name))

    def _next(self, name: str) -> Iterator[tuple[int, str]]:
        if not self._found.sound("models", name) or not self._found.sound("models", name, "fallbacks"):
            return
        for i, fallback in enumerate(self._settings.models[name].fallbacks):
            if self._found.sound("models", name, "fallbacks", i) and (led_to := self._led_to(fallback)):
                yield i, led_to

    # ── requests that name no model

    def _forward(self) -> None:
        for path, provider in self._settings.forward.items():
            where = ("forward", path)
            if not self._found.sound(*where):
                continue
            if path != "*" and not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", path):
                self._wrong(where, f'"{path}" is no path below /v1', 'write it like files, vector_stores or "*"')
            elif path.split("/")[0] in ("models", "responses") or f"/{path}" in OWN_PATHS:
                self._wrong(where, f"/v1/{path} is answered by the gateway itself", "leave it out")
            if self._all_providers and provider not in self._settings.providers:
                self._wrong(where, f'unknown provider "{provider}"', self._provider_cure(provider))

    def _proxy(self) -> None:
        for name, service in self._settings.proxy.items():
            if not re.fullmatch(r"[\w.-]+", name):
                problem = f'"{name}" cannot be a part of a path'
                self._wrong(("proxy", name), problem, "use letters, digits, dots, dashes and underscores")
            if self._found.sound("proxy", name, "timeouts"):
                self._timeouts(("proxy", name, "timeouts"), service.timeouts)

    # ── keys

    def _keys(self) -> None:
        if not self._found.sound("keys"):
            return
        names: dict[object, int] = {}
        digests: dict[object, int] = {}
        for i, key in enumerate(self._settings.keys):
            if not self._found.sound("keys", i):
                continue
            if self._found.sound("keys", i, "name"):
                self._once(names, key.name, ("keys", i, "name"), f'another key is called "{key.name}" too')
                if not key.name:
                    self._wrong(("keys", i, "name"), "a key needs a name", "it tells keys apart in logs and limits")
                if ":" in key.name:
                    problem = "a key's name has no colon: `user:ann` is what the owner of a token is called"
                    self._wrong(("keys", i, "name"), problem, "use another character")
            secret = key.key.reveal() if self._found.sound("keys", i, "key") else None
            if secret is not None and self._line(("keys", i, "key"), secret):
                try:
                    digest = digest_of(secret)
                except ValueError as error:
                    self._wrong(("keys", i, "key"), str(error))
                else:
                    self._once(digests, digest, ("keys", i, "key"), "another key has the same secret")
            if self._found.sound("keys", i, "models"):
                self._allowed(i, key.models)

    def _once(self, seen: dict[object, int], value: object, path: Path, problem: str) -> None:
        """Complain when `value` was seen at an earlier key."""
        i = int(path[1])
        first = seen.setdefault(value, i)
        if first != i:
            line = self._root.find(("keys", first))[0].line
            self._wrong(path, f"{problem} (line {line})", "calls could not be told apart; give each its own")

    def _allowed(self, i: int, models: list[str]) -> None:
        for j, pattern in enumerate(models):
            path = ("keys", i, "models", j)
            if self._found.sound(*path) and self._all_models and not self._opens(pattern):
                self._wrong(path, f'"{pattern}" is no model here', self._near(pattern, self._models))

    def _opens(self, pattern: str) -> bool:
        """Tell whether a key's entry matches any model, now or once a pattern's route has its name filled in."""
        known = self._opening.get(pattern)
        if known is None:
            fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
            begins = [name[:-1] for name in self._patterns]
            known = pattern in self._names or any(pattern.startswith(begin) for begin in begins)
            if not known and fixed != pattern:
                known = pattern == "*" or any(begin.startswith(fixed) for begin in begins)
                known = known or any(fnmatchcase(name, pattern) for name in self._names)
            self._opening[pattern] = known
        return known

    # ── the chain

    def _chain(self) -> None:
        if not self._found.sound("chain"):
            return
        uses = [use for use, _ in self._found.rooms]
        for i, (use, inside) in enumerate(self._found.rooms):
            if use and use in uses[:i]:
                self._wrong(("chain", i), f'"{use}" is in the chain twice', "keep one of them")
                continue
            for other, reason in inside.items():
                if other in uses[i + 1 :]:
                    self._wrong(("chain", i), f'"{use}" must stand after "{other}": {reason}', "move it down")
        self._single_attempt()
        self._without_redis()
        if all(use in plugins.MIDDLEWARES for use in uses):  # what another's middleware does with keys, we cannot know
            self._idle(uses)

    def _single_attempt(self) -> None:
        """Complain of routes that want a second attempt where only one is made."""
        made = [options.attempts for options in self._settings.chain if isinstance(options, RetryOptions)]
        if made and made[0] > 1:
            return
        cure = "give `retry` more attempts" if made else "add `- use: retry` to the chain"
        for name, route in self._settings.models.items():
            if not self._found.whole("models", name):
                continue
            for field, wants in (("hedge", route.hedge is not None), ("midstream", route.midstream in JOINS)):
                if wants:
                    self._wrong(("models", name, field), "it takes a second attempt, and only one is made", cure)

    def _without_redis(self) -> None:
        if not self._found.sound("redis") or self._settings.redis.reveal():
            return
        for i, options in enumerate(self._settings.chain):
            sound = self._found.sound("chain", i, "without_redis")
            if sound and isinstance(options, LimitsOptions) and options.without_redis != "local":
                problem = f'"{options.without_redis}" has no effect, because no `redis:` is set: this process counts'
                self._wrong(("chain", i, "without_redis"), problem, "set it, or leave this out")

    def _idle(self, uses: list[str]) -> None:
        """Complain of what nobody in the chain looks at."""
        if self._settings.keys and "auth" not in uses:
            self._wrong(("keys",), "nobody asks for these keys", "add `- use: auth` to the chain")
        for i, key in enumerate(self._settings.keys):
            limited = self._found.sound("keys", i) and key.limits != Limits()
            if limited and "limits" not in uses:
                problem = "nobody keeps these limits"
                self._wrong(("keys", i, "limits"), problem, "add `- use: limits` to the chain, after auth")
                return  # one mistake, however many keys have limits
