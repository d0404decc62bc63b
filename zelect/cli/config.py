"""`zelect config`: which configuration counts, and what may stand in one."""

from __future__ import annotations

import json

import click

from zelect.cli.support.options import config_option, id_option, json_option


@click.group()
def config() -> None:
    """Show the configuration that counts, or its schema."""


@config.command()
@config_option
@id_option
@json_option
def show(path: str | None, node_id: int | None, as_json: bool) -> None:
    """Print every key, its value, and where it was set.

    A key is set by the file, or by the environment: url in [redis] by ZELECT_REDIS__URL, all members by
    ZELECT_PEERS=1=tcp://host:port,2=... Passwords are not shown.
    """
    from zelect.cli.support.errors import explained
    from zelect.config.loading import chosen, load
    from zelect.config.origins import Setting, settings_of
    from zelect.redis.errors import safe_url
    from zelect.status.codec import plain
    from zelect.status.table import Column, table

    with explained():
        found = load(chosen(path), node_id=node_id or 0, member=False)
    settings = list(settings_of(found, safe_url(found.redis.url)))
    if as_json:
        click.echo(json.dumps([plain(setting) for setting in settings], indent=2))
        return
    columns = (
        Column[Setting]("key", lambda one: one.key),
        Column[Setting]("value", lambda one: one.value or "-"),
        Column[Setting]("set by", lambda one: one.origin),
    )
    click.echo("\n".join(table(columns, settings)))


@config.command()
def schema() -> None:
    """Print a JSON schema of the configuration file, for editors.

    Editors that know TOML schemas (taplo, Even Better TOML) read a first line "#:schema FILE".
    """
    from zelect.config.origins import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
