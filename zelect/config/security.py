"""The section [security] of a configuration: the keys, or plain text where only this host can listen in."""

from __future__ import annotations

from dataclasses import dataclass

from zelect.config.schema import key
from zelect.config.validators import ADDRESS, is_loopback, optional_path


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Absolute paths, or empty."""

    key_file: str = key("", optional_path, is_path=True)("""
        This node's secret key, made by 'zelect keygen', readable only by its user. "": plain text, which
        is allowed while "listen" is a loopback address; then everybody on this host may ask and send admin
        commands. All paths here are relative to this file. 'zelect reload' reads the files again.""")
    directory_file: str = key("", optional_path, is_path=True)("""
        The public keys of all members, and of the operators with their permissions: the file public.toml of
        'zelect keygen', the same on every host. Set together with key_file.""")
    operator_key_file: str = key("", optional_path, is_path=True)("""
        For commands run with "-c" on this file: the key that they use. The node doesn't read it. "": the node's
        own key, which has the permission to read but not the permission for admin commands.""")
    secret_file: str = key("", optional_path, is_path=True)("""
        What all nodes share and Redis must not have: the file cluster.secret of 'zelect keygen', the same on every
        host, readable only by its user. The witness in Redis hands out the voter record; with a secret a
        node takes it only when a node wrote it. "": with keys it is not taken at all, in plain text Redis is trusted
        like a member. Read at the start.""")
    allow_plaintext: bool = key(False)("""
        true: plain text on any address. I accept that everybody who can reach this node's port can read
        what the members say, speak in their name, and so decide elections.""")

    def problems(self, member: bool = True) -> list[tuple[str, str]]:
        """`member` False: for who only asks, and may have another key."""
        if bool(self.key_file) == bool(self.directory_file) or (self.directory_file and not member):
            return []
        missing, given = ("directory_file", "key_file") if self.key_file else ("key_file", "directory_file")
        return [(missing, f"is missing, but {given} is set; set both, 'zelect keygen' writes both files")]


def plaintext_problem(security: SecurityConfig, listen: str | None) -> list[tuple[str, str]]:
    """What is wrong with `listen` without keys: other hosts can reach it, and nobody said that they may."""
    match = ADDRESS.fullmatch(listen or "")
    if security.key_file or security.directory_file or security.allow_plaintext or match is None:
        return []
    if is_loopback(match["host"]):
        return []
    return [
        (
            "listen",
            f"{listen} can be reached from other hosts, where anybody could read what members say and speak "
            "in their name; make keys with 'zelect keygen' and name them in [security], or set "
            "security.allow_plaintext = true if only hosts that you trust can reach it",
        )
    ]
