from units.tokens import API_PREFIX, NODE_PREFIX, hash_of, hash_of_bearer, make_token


def test_a_token_is_long_and_shows_itself_in_no_log() -> None:
    token = make_token(NODE_PREFIX)
    assert token.text.startswith("msha_node_")
    assert len(token.text) == len("msha_node_") + 43
    assert token.text not in repr(token)
    assert token.hash == hash_of(token.text)


def test_a_bearer_header_yields_the_hash_of_its_token() -> None:
    token = make_token(NODE_PREFIX)
    assert hash_of_bearer(f"Bearer {token.text}", NODE_PREFIX) == token.hash


def test_a_token_of_another_kind_or_form_yields_nothing() -> None:
    token = make_token(API_PREFIX)
    assert hash_of_bearer(f"Bearer {token.text}", NODE_PREFIX) is None
    assert hash_of_bearer(f"Basic {token.text}", API_PREFIX) is None
    assert hash_of_bearer(f"Bearer {token.text}x", API_PREFIX) is None
    assert hash_of_bearer("", API_PREFIX) is None
