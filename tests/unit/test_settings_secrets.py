"""Secret settings: their values are known, so that no output shows them."""

from pathlib import Path

from fleet.settings import Settings


def test_passwords_of_urls_count_by_themselves_as_written_and_as_meant(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        broker_url="rediss://me:p%40ss-word@broker:6380/0",  # type: ignore[arg-type]
        database_url="sqlite:///file",  # type: ignore[arg-type]
        flower_password="of-flower",  # type: ignore[arg-type]
    )
    assert set(settings.secret_values()) == {b"p%40ss-word", b"p@ss-word", b"of-flower"}
    assert Settings(state_dir=tmp_path).secret_values() == ()


def test_a_password_of_its_own_is_the_one_of_the_user_in_the_url(tmp_path: Path) -> None:
    def broker(url: str) -> "str | None":
        return Settings(state_dir=tmp_path, broker_url=url, broker_password="of-its-own").require_broker().password  # type: ignore[arg-type]

    assert broker("rediss://control@broker:6380/0") == "of-its-own"
    assert broker("rediss://control:in-the-url@broker:6380/0") == "in-the-url"
    assert broker("rediss://broker:6380/0") == "of-its-own"
