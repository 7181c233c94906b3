"""Who is let in, by a virtual key or a token, and what they are told who are not."""

import json
import sys
from base64 import urlsafe_b64encode
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.core.errors import Forbidden, Unauthorized, Unavailable
from gateway.core.principal import ANYONE, Principal
from gateway.core.secret import Secret
from gateway.middleware import jwt_verifier
from gateway.middleware.auth import AuthOptions, masked
from gateway.middleware.jwt_options import Claims, JwtOptions
from gateway.settings.keys import VirtualKey, VirtualKeys, digest_of
from tests.standins import MORNING_S, Inner, StillClock, call_of

SECRET = "a shared secret of 32 bytes, 64!" * 2
URL = "https://issuer.example/jwks.json"
TEAM_A = Principal("team-a", models=("fast", "openai/*"))


class Published:
    """A JWKS that is at hand."""

    def __init__(self, **keys: Any) -> None:
        self.keys, self.asked, self.down = keys, 0, False

    async def find(self, url: str, kid: str) -> Any:
        self.asked += 1
        if self.down:
            raise Unavailable("no keys", retry_after_s=20)
        return self.keys.get(kid)


class House:
    """The auth room with one virtual key, and tokens if asked for."""

    def __init__(self, options: JwtOptions | None = None, key_sets: Published | None = None) -> None:
        self.clock = StillClock()
        keys = VirtualKeys([VirtualKey(digest_of("sk-team-a-0123456789"), TEAM_A)], self.clock)
        self.inner = Inner()
        resources: Any = SimpleNamespace(keys=keys, clock=self.clock, key_sets=key_sets)
        self.room = AuthOptions(jwt=options).build(resources)

    async def enter(self, key: str, **changes: Any) -> Principal:
        call = call_of(self.clock, key=key, **changes)
        await self.room(call, self.inner)
        assert call.receipt.principal == self.inner.calls[-1].principal
        return call.receipt.principal

    async def refusal(self, key: str, **changes: Any) -> str:
        call = call_of(self.clock, key=key, **changes)
        with pytest.raises(Unauthorized) as caught:
            await self.room(call, self.inner)
        assert (call.receipt.principal, call.receipt.headers) == (ANYONE, {"www-authenticate": "Bearer"})
        assert self.inner.calls == []
        return caught.value.message


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: Any) -> str:
    said = {"sub": "ann", "exp": int(MORNING_S) + 3600, **claims}
    headers = None if kid is None else {"kid": kid}
    return jwt.encode({k: v for k, v in said.items() if v is not None}, key, algorithm, headers)


def shared(**options: Any) -> JwtOptions:
    return JwtOptions(secret=Secret(SECRET), **options)


def jwk_of(private: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithm = "RS256" if isinstance(private, rsa.RSAPrivateKey) else "ES256"
    return {**jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True), "kid": kid, **more}


RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())


# ── Virtual keys and models ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_owner_of_a_key_goes_in_under_their_name():
    """The rooms further in, and the receipt, know whom the call is charged to."""
    assert await House().enter("sk-team-a-0123456789") == TEAM_A


async def test_no_key_and_a_wrong_key_are_told_the_cure_without_the_secret():
    """A message ends in logs: three characters and four are enough for the owner to know the key by."""
    house = House()
    assert await house.refusal("") == "no API key: send `Authorization: Bearer <key>`"
    cure = "send one of the gateway's `keys:` as `Authorization: Bearer …`"
    assert await house.refusal("sk-mistyped-secret-9876") == f"no such API key: sk-…9876; {cure}"
    assert await house.refusal("sk-short-one") == f"no such API key; {cure}"
    assert masked("x" * 12) == ""


async def test_the_digest_of_an_empty_secret_lets_nobody_in():
    """It is what `sha256sum` makes of an unset variable: whoever sends no key would be let in by it."""
    house = House()
    nothing = VirtualKey(digest_of(f"sha256:{sha256(b'').hexdigest()}"), TEAM_A)
    resources: Any = SimpleNamespace(keys=VirtualKeys([nothing], house.clock), clock=house.clock)
    house.room = AuthOptions().build(resources)
    assert await house.refusal("") == "no API key: send `Authorization: Bearer <key>`"


async def test_a_model_that_is_not_the_callers_is_refused_naming_those_that_are():
    """Only the owner is told; a stranger with the same question learns no model's name."""
    house = House()
    await house.enter("sk-team-a-0123456789", model="openai/gpt-4o")
    with pytest.raises(Forbidden) as caught:
        await house.enter("sk-team-a-0123456789", model="claude")
    assert caught.value.message == 'this key may not use "claude"; it may use fast, openai/*'
    assert (caught.value.status, caught.value.code, caught.value.param) == (403, "model_not_allowed", "model")
    assert "fast" not in await House().refusal("sk-stranger-0123456789", model="claude")


@pytest.mark.parametrize("operation", ["models", "invalid", "admin"])
async def test_calls_that_ask_no_model_are_authenticated_too(operation):
    """Lists, reloads and unreadable requests are for those we know; there is no model to check."""
    assert operation in AuthOptions.operations
    await House().enter("sk-team-a-0123456789", operation=operation, model="")
    await House().refusal("sk-stranger-0123456789", operation=operation, model="")


def test_a_chain_that_would_let_nobody_in_is_refused():
    """An empty list of keys is a mistake, not a wish."""
    resources: Any = SimpleNamespace(keys=VirtualKeys([], StillClock()), clock=StillClock(), key_sets=None)
    with pytest.raises(ValueError, match=r"auth would let nobody in: add `keys:` or `jwt:`"):
        AuthOptions().build(resources)
    AuthOptions(jwt=shared()).build(resources)


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_token_and_a_key_go_in_at_the_same_door():
    """A team moves from keys to tokens one program at a time."""
    house = House(shared())
    assert (await house.enter(token())).id == "user:ann"
    assert await house.enter("sk-team-a-0123456789") == TEAM_A
    cure = "send one of the gateway's `keys:` or a token as `Authorization: Bearer …`"
    assert await House(shared()).refusal("sk-mistyped-secret-9876") == f"no such API key: sk-…9876; {cure}"


async def test_claims_become_the_principal_by_dotted_paths():
    """As Supabase nests them; a claim whose own name has dots is found by its whole name."""
    paths = Claims(user="email", team="app_metadata.team", models="app_metadata.models", admin="https://acme.io/admin")
    said = {"app_metadata": {"team": "blue", "models": ["fast", 7, "o*"]}, "https://acme.io/admin": True}
    house = House(shared(claims=paths))
    assert await house.enter(token(email="ann@acme.io", **said)) == Principal(
        "user:ann@acme.io", user="ann@acme.io", team="blue", models=("fast", "o*"), admin=True
    )
    assert (await house.enter(token(email="b", app_metadata={"models": "fast slow"}))).models == ("fast", "slow")


@pytest.mark.parametrize("said", ["true", 1, ["x"], {"a": 1}, None, False])
async def test_nothing_but_true_makes_an_administrator(said):
    """`"false"` is a true string."""
    assert not (await House(shared(claims=Claims(admin="boss"))).enter(token(boss=said))).admin


async def test_a_token_without_the_claim_of_models_may_use_none():
    """Where the claim is configured, silence is no permission."""
    with pytest.raises(Forbidden, match="it may use no model at all"):
        await House(shared(claims=Claims(models="models"))).enter(token())


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"exp": int(MORNING_S) - 31}, "has expired"),
        ({"exp": None}, "does not say when it expires"),
        ({"exp": "soon"}, "`exp` is no time"),
        ({"exp": float("inf")}, "`exp` is no time"),
        ({"exp": float("nan")}, "`exp` is no time"),
        ({"exp": 10**400}, "`exp` is no time"),
        ({"exp": True}, "`exp` is no time"),
        ({"nbf": int(MORNING_S) + 31}, "not valid yet"),
        ({"iss": "https://evil.example"}, "made by somebody else"),
        ({"iss": None}, "claim `iss` is missing"),
        ({"aud": "other"}, "made for another service"),
        ({"aud": None}, "claim `aud` is missing"),
        ({"role": "anon"}, "claim `role` is not what this gateway asks for"),
        ({"role": None}, "claim `role` is not what this gateway asks for"),
        ({"sub": None}, "does not say whose it is"),
        ({"sub": ""}, "does not say whose it is"),
        ({"sub": "x" * 257}, "claim `sub` is no text"),
        ({"sub": "ann\ud83d"}, "claim `sub` is no text"),
    ],
)
async def test_a_token_that_does_not_fit_is_told_why(claims, told):
    """Each claim that is asked for is checked, and the client is told which."""
    asked = shared(issuer="https://me.example", audience=("gateway", "both"), require={"role": "authenticated"})
    fits = {"iss": "https://me.example", "aud": ["both", "x"], "role": ["x", "authenticated"]}
    await House(asked).enter(token(**fits))
    assert told in await House(asked).refusal(token(**{**fits, **claims}))


async def test_the_clocks_of_signer_and_gateway_may_differ_by_the_leeway():
    """Half a minute is normal; it holds at both ends of a token's life."""
    await House(shared()).enter(token(exp=int(MORNING_S) - 29, nbf=int(MORNING_S) + 29))


async def test_a_token_without_a_configured_audience_may_have_any():
    """Left out means anything, as the option says."""
    await House(shared()).enter(token(aud="authenticated", iss="x"))


def _forged(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), b""]
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    "forged",
    [
        _forged({"alg": "none"}, {"sub": "ann", "exp": int(MORNING_S) + 60}),
        _forged({"alg": "NONE"}, {"sub": "ann", "exp": int(MORNING_S) + 60}),
        _forged({"alg": ["HS256"]}, {"sub": "ann", "exp": int(MORNING_S) + 60}),
        token("another secret of 32 bytes, 6464" * 2),
        token(algorithm="HS512"),
        token()[:-3] + "AAA",
        "a.b.c",
        "..",
        "é.é.é",
        "\udc80.b.c",
        "a." * 20_000 + "c",
        "[" * 9000 + ".b.c",
        _forged({"alg": "HS256", "kid": 7}, {"sub": "ann"}),
    ],
    ids=range(13),
)
async def test_a_forged_token_is_refused_and_nothing_of_it_repeated(forged):
    """No algorithm but the configured one, no signature but the right one, and no crash on rubbish."""
    message = await House(shared()).refusal(forged)
    assert len(message) < 120
    assert forged not in message


async def test_a_key_of_the_key_set_opens_and_its_public_half_is_no_secret():
    """RS and ES go by the published key; a token signed with HS and the published key as secret is forged."""
    published = Published(r=jwk_of(RSA, "r"), e=jwk_of(EC, "e"))
    options = JwtOptions(jwks_url=URL)
    assert (await House(options, published).enter(token(RSA, "RS256", "r"))).id == "user:ann"
    assert (await House(options, published).enter(token(EC, "ES256", "e"))).id == "user:ann"
    for forged in (
        token(published.keys["r"]["n"], "HS256", "r"),
        token(EC, "ES256", "r"),
        token(RSA, "RS256", "e"),
        token(RSA, "RS512", "r"),
        token(rsa.generate_private_key(65537, 2048), "RS256", "r"),
        token(RSA, "RS256", "unknown"),
    ):
        assert "the token is not valid" in await House(options, published).refusal(forged)


async def test_a_published_key_serves_only_the_algorithm_it_is_published_for():
    """A key that says PS256 verifies no RS256."""
    options = JwtOptions(jwks_url=URL)
    assert "accepted here" in await House(options, Published(r=jwk_of(RSA, "r", alg="PS256"))).refusal(
        token(RSA, "RS256", "r")
    )


async def test_while_no_keys_can_be_fetched_the_client_is_told_to_come_back():
    """It is our trouble, not a wrong token: 503 and when to ask again, not 401."""
    published = Published()
    published.down = True
    with pytest.raises(Unavailable) as caught:
        await House(JwtOptions(jwks_url=URL), published).enter(token(RSA, "RS256", "r"))
    assert (caught.value.status, caught.value.retry_after_s, caught.value.retry_helps) == (503, 20, True)


async def test_a_token_is_verified_once_and_forgotten_at_its_end():
    """Verifying costs more than the rest of the room; but a token's last second is its last."""
    published = Published(r=jwk_of(RSA, "r"))
    house = House(JwtOptions(jwks_url=URL), published)
    brief = token(RSA, "RS256", "r", exp=int(MORNING_S) + 60)
    for _ in range(3):
        await house.enter(brief)
    assert published.asked == 1
    house.clock.passed_s = 90
    house.inner.calls.clear()
    assert "expired" in await house.refusal(brief)


async def test_a_withdrawn_key_ends_even_a_long_token_within_ten_minutes():
    """Otherwise a stolen signing key would stay good for as long as its thief had written."""
    published = Published(r=jwk_of(RSA, "r"))
    house = House(JwtOptions(jwks_url=URL), published)
    long = token(RSA, "RS256", "r", exp=int(MORNING_S) + 10**7)
    await house.enter(long)
    published.keys.clear()
    house.clock.passed_s = jwt_verifier.REMEMBERED_S
    house.inner.calls.clear()
    assert "not signed with" in await house.refusal(long)


async def test_a_token_that_begins_like_a_verified_one_is_another_token():
    """CVE-2026-35030: a cache by a token's first characters let strangers in. Ours goes by all of it."""
    house = House(shared())
    good = token()
    await house.enter(good)
    house.inner.calls.clear()
    for stranger in (good[:-1] + ("A" if good[-1] != "A" else "Q"), good + "A", good[:-1], good.upper()):
        await house.refusal(stranger)


async def test_no_more_tokens_are_remembered_than_may_be(monkeypatch):
    """Memory is bounded; the one used longest ago goes first."""
    monkeypatch.setattr(jwt_verifier, "MOST_REMEMBERED", 3)
    published = Published(r=jwk_of(RSA, "r"))
    house = House(JwtOptions(jwks_url=URL), published)
    tokens = [token(RSA, "RS256", "r", sub=f"u{n}") for n in range(4)]
    for one in [*tokens[:3], tokens[0], tokens[3], tokens[0]]:
        await house.enter(one)
    assert published.asked == 4
    await house.enter(tokens[1])
    assert published.asked == 5


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (JwtOptions(), "either `secret` or `jwks_url`; both are empty"),
        (JwtOptions(secret=Secret(SECRET), jwks_url=URL), "not both"),
        (JwtOptions(secret=Secret("x" * 31)), "31 bytes are too few .*; make one with `openssl rand"),
        (JwtOptions(secret=Secret("x" * 63), algorithms=("HS256", "HS512")), "63 bytes are too few"),
        (JwtOptions(secret=Secret("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----")), "public key"),
        (JwtOptions(secret=Secret(SECRET), algorithms=("RS256",)), '"RS256" does not go with `secret`'),
        (JwtOptions(jwks_url=URL, algorithms=("HS256",)), '"HS256" does not go with `jwks_url`'),
        (JwtOptions(jwks_url=URL, algorithms=("none",)), '"none" does not go with'),
        (JwtOptions(jwks_url="file:///etc/passwd"), "jwks_url: expected https://"),
    ],
)
def test_options_that_do_not_go_together_are_refused_with_the_cure(options, told):
    """A mistake in who is let in is found when the configuration is read, not by a burglar."""
    with pytest.raises(ValueError, match=told):
        House(options, Published())


async def test_a_remembered_token_costs_next_to_nothing():
    """The room is on every call's path; to verify it each time would be a fifth of a gateway's time."""
    house = House(JwtOptions(jwks_url=URL), Published(r=jwk_of(RSA, "r")))
    call = call_of(house.clock, key=token(RSA, "RS256", "r"))
    await house.room(call, house.inner)
    called: list[str] = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        await house.room(call, house.inner)
    finally:
        sys.setprofile(None)
    assert len(called) < 30, called
