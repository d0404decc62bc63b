"""How a node authenticates to Redis: its user, where the password is, and which certificates it trusts.

The password is read again for each connection and kept nowhere: a changed file is used from the
next connection on, and nothing that can be printed holds it. This module does not import redis-py, which
takes `Credentials` as one of its credential providers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelect.config.loading import Config, ConfigError
from zelect.system.secure_files import UnsafeFile, read_secret


class CredentialsError(Exception):
    """The user's password or a TLS file cannot be used; the text names key and fix, no secret."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is not in the URL. Empty: none; TLS trusts the authorities of the system."""

    username: str = ""
    password_file: str = ""
    password_env: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    tls_verify: bool = True

    def check(self, tls: bool) -> None:
        """Check that everything named here can be used. Raises `CredentialsError`."""
        self.get_credentials()
        if tls:
            self._check_tls()

    def get_credentials(self) -> tuple[str, ...]:
        """The user and the password, or the password alone, or nothing. Raises `CredentialsError`."""
        password = ""
        if self.password_file:
            try:
                password = read_secret(Path(self.password_file))
            except UnsafeFile as error:
                raise CredentialsError(f"redis.password_file: {error}") from None
        elif self.password_env:
            password = os.environ.get(self.password_env, "")
            if not password:
                raise CredentialsError(
                    f"redis.password_env: {self.password_env} is not set: set it, or name another variable"
                )
        return tuple(filter(None, (self.username, password)))

    def options(self, tls: bool) -> dict[str, Any]:
        """Options for redis-py."""
        options: dict[str, Any] = {}
        if self.password_file or self.password_env:
            options["credential_provider"] = self
        if tls:
            options |= {
                "ssl_cert_reqs": "required" if self.tls_verify else "none",
                "ssl_check_hostname": self.tls_verify,
                "ssl_ca_certs": self.ca_file or None,
                "ssl_certfile": self.cert_file or None,
                "ssl_keyfile": self.key_file or None,
                "ssl_password": "",  # else an encrypted key is asked for on the terminal
            }
        return options

    def _check_tls(self) -> None:
        import ssl  # here only: it takes time and memory

        try:
            context = ssl.create_default_context()
        except OSError as error:
            raise CredentialsError(f"redis: TLS cannot be used: {error}") from None
        for key, path in (("ca_file", self.ca_file), ("cert_file", self.cert_file)):
            if not path:
                continue
            try:
                if key == "ca_file":
                    context.load_verify_locations(path)
                else:
                    _check_private(self.key_file)
                    context.load_cert_chain(path, self.key_file, "")
            except OSError as error:  # an SSLError is one
                raise CredentialsError(
                    f"redis.{key}: {path}: {_why(error)}; name a PEM file that the node may read"
                    + (", and its key, unencrypted, in redis.key_file" if key == "cert_file" else "")
                ) from None


def credentials_of(config: Config) -> Credentials:
    """The credentials that `config` names, checked: they can be used now. Raises `ConfigError`."""
    redis = config.redis
    credentials = Credentials(
        username=redis.username,
        password_file=redis.password_file,
        password_env=redis.password_env,
        ca_file=redis.ca_file,
        cert_file=redis.cert_file,
        key_file=redis.key_file,
        tls_verify=redis.tls_verify,
    )
    try:
        if redis.url:
            credentials.check(tls=redis.url.startswith("rediss://"))
    except CredentialsError as error:
        raise ConfigError(f"{config.path}: {error}") from None
    return credentials


def _check_private(path: str) -> None:
    """Raises `CredentialsError` when others could read the key at `path`."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise CredentialsError(
            f"redis.key_file: {path}: {error.strerror}; name a file that the node may read"
        ) from None
    if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
        raise CredentialsError(
            f"redis.key_file: {path}: can be read or changed by others; change the key if they may have seen it, then: "
            f"chmod 600 {path}"
        )


def _why(error: OSError) -> str:
    reason = getattr(error, "reason", "")
    return str(reason).lower().replace("_", " ") if reason else error.strerror or "is not a PEM file"
