"""Our tables beside Optuna's, and every SQL statement of ours.

Elsewhere is only what is none: Optuna's rows handled through its own models, and what a connection is told about itself
when it opens (PRAGMA, SET, BEGIN IMMEDIATE: engine.py).

``trial_leases`` has one row for each trial that one of our workers created or took. Who holds a trial is said by
``token``: it goes up by one with every take-over, and every write to a held trial is conditional on it. ``beat`` goes
up with every renewal, so that a claimer can see life without trusting anybody's clock. Times are seconds since 1970
by the *database's* clock. Snapshot positions are 0-based ``(epoch, batch)``: :class:`petskin_tune.protocol.Position`.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

SCHEMA_VERSION = 3
LEASE_SECONDS = 90.0  # of rows from before it was recorded: the study file's default

metadata = sa.MetaData()

versions = sa.Table(
    "petskin_tune_schema",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True),
)

trial_leases = sa.Table(
    "trial_leases",
    metadata,
    # Optuna's table lives in its own metadata: LINK_TO_TRIALS below adds what ties the rows to it.
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(255), nullable=False),
    sa.Column("identity", sa.Text, nullable=False),  # JSON of identity.Identity
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("beat", sa.Integer, nullable=False),
    sa.Column("claimed_at", sa.Float(53), nullable=False),  # when its present run began
    sa.Column("expires_at", sa.Float(53), nullable=False),
    # How long it lasts without renewal: a person may change the study's figure at any time.
    sa.Column("lease_seconds", sa.Float(53), nullable=False, server_default=sa.text(f"{LEASE_SECONDS:g}")),
    sa.Column("state", sa.String(16), nullable=False),  # running, released, frozen, done
    # Epochs after which its owner asks whether to go on; NULL: it trains to its end, unless it is pruned.
    sa.Column("until_epoch", sa.Integer),
    sa.Column("nonce", sa.String(64), nullable=False, unique=True),  # of the last birth or claim: finds its own work
    sa.Column("resumes", sa.Integer, nullable=False),
    sa.Column("seconds_lost", sa.Float(53), nullable=False),  # between the newest snapshot and the end, over all owners
    sa.Column("snapshot_key", sa.Text),
    sa.Column("snapshot_sha256", sa.String(64)),
    sa.Column("snapshot_epoch", sa.Integer),
    sa.Column("snapshot_batch", sa.Integer),
    sa.Column("snapshot_at", sa.Float(53)),  # when it became durable
    sa.Column("previous_key", sa.Text),
    sa.Column("previous_sha256", sa.String(64)),
    sa.Column("previous_epoch", sa.Integer),
    sa.Column("previous_batch", sa.Integer),
    sa.Column("crashes", sa.Integer, nullable=False),  # deaths in a row without a newer durable position
    sa.Column("vanishes", sa.Integer, nullable=False),  # machines lost in a row before a snapshot was due
    sa.Column("death_epoch", sa.Integer),  # durable position at the last death
    sa.Column("death_batch", sa.Integer),
    sa.Column("reason", sa.Text),
    sa.Index("trial_leases_of_study", "study_id", "state"),
)

NOW = {
    "postgresql": "extract(epoch from clock_timestamp())",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}


def _for_each_dialect(template: str) -> dict[str, sa.TextClause]:
    return {dialect: sa.text(template.replace("{now}", now)) for dialect, now in NOW.items()}


CLOCK = _for_each_dialect("SELECT {now}")

# ---- births ----------------------------------------------------------------------------------------------------------

LOCK_STUDY = {
    "postgresql": sa.text("SELECT study_id FROM studies WHERE study_id = :study_id FOR UPDATE"),
    "sqlite": sa.text("SELECT study_id FROM studies WHERE study_id = :study_id"),  # BEGIN IMMEDIATE has the lock
}

WHOSE_STUDY = sa.text(
    "SELECT key, value_json FROM study_user_attributes WHERE study_id = :study_id AND key IN (:uid, :deleting)"
)

COUNT_OURS = sa.text("SELECT count(*) FROM trial_leases WHERE study_id = :study_id")

FIND_BIRTH = sa.text(
    "SELECT t.trial_id, t.number, l.token FROM trial_leases l JOIN trials t ON t.trial_id = l.trial_id "
    "WHERE l.nonce = :nonce"
)

FIRST_WAITING = sa.text(
    "SELECT trial_id FROM trials WHERE study_id = :study_id AND state = 'WAITING' ORDER BY number LIMIT 1"
)

INSERT = _for_each_dialect(
    """
    INSERT INTO trial_leases (trial_id, study_id, worker, identity, token, beat, claimed_at, expires_at,
                              lease_seconds, state, until_epoch, nonce, resumes, seconds_lost, crashes, vanishes,
                              reason)
    VALUES (:trial_id, :study_id, :worker, :identity, 1, 0, {now}, {now} + :seconds,
            :seconds, :state, :until, :nonce, 0, 0, 0, 0, :reason)
    """
)

# A trial of ours without a lease row: it carries our mark and has been RUNNING for longer than a lease.
UNLEASED = sa.text(
    """
    SELECT t.trial_id FROM trials t
    JOIN trial_system_attributes a ON a.trial_id = t.trial_id AND a.key = :mark
    LEFT JOIN trial_leases l ON l.trial_id = t.trial_id
    WHERE t.study_id = :study_id AND t.state = 'RUNNING' AND l.trial_id IS NULL AND t.datetime_start < :before
    ORDER BY t.number
    """
).bindparams(sa.bindparam("before", type_=sa.DateTime))  # Optuna stores naive UTC

# ---- a held trial ----------------------------------------------------------------------------------------------------

# The first statement of every write to a held trial, in the same transaction: one row, or the write does not happen.
# Until that transaction ends it keeps a claimer out, and afterwards the claimer's `beat` is an old one.
RENEW = _for_each_dialect(
    """
    UPDATE trial_leases SET beat = beat + 1, expires_at = {now} + :seconds, lease_seconds = :seconds
    WHERE trial_id = :trial_id AND token = :token AND state = 'running'
        AND EXISTS (SELECT 1 FROM trials t WHERE t.trial_id = :trial_id AND t.state = 'RUNNING')
    """
)

POINT_TO_SNAPSHOT = _for_each_dialect(
    """
    UPDATE trial_leases SET
        previous_key = snapshot_key, previous_sha256 = snapshot_sha256,
        previous_epoch = snapshot_epoch, previous_batch = snapshot_batch,
        snapshot_key = :key, snapshot_sha256 = :sha256, snapshot_epoch = :epoch, snapshot_batch = :batch,
        snapshot_at = {now}
    WHERE trial_id = :trial_id AND token = :token AND (snapshot_key IS NULL OR snapshot_key <> :key)
    """
)

# The newest snapshot is no good and training goes on from :key, the one before: it must not be the next one's
# `previous`. Progress is then measured from where training really stands.
FALL_BACK = sa.text(
    """
    UPDATE trial_leases SET
        snapshot_key = previous_key, snapshot_sha256 = previous_sha256,
        snapshot_epoch = previous_epoch, snapshot_batch = previous_batch,
        death_epoch = previous_epoch, death_batch = previous_batch,
        previous_key = NULL, previous_sha256 = NULL, previous_epoch = NULL, previous_batch = NULL
    WHERE trial_id = :trial_id AND token = :token AND previous_key = :key
    """
)

SET_STATE = sa.text(
    "UPDATE trial_leases SET state = :state, reason = :reason WHERE trial_id = :trial_id AND token = :token"
)

STATE_OF = sa.text("SELECT state FROM trial_leases WHERE trial_id = :trial_id AND token = :token")

COUNT_DEATH = _for_each_dialect(
    """
    UPDATE trial_leases SET crashes = :crashes, seconds_lost = :seconds_lost, claimed_at = {now},
        death_epoch = snapshot_epoch, death_batch = snapshot_batch
    WHERE trial_id = :trial_id AND token = :token
    """
)

INSERT_VALUE = sa.text(
    """
    INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
    VALUES (:trial_id, :step, :value, :kind) ON CONFLICT (trial_id, step) DO NOTHING
    """
)


def set_attributes(table: str, count: int) -> sa.TextClause:
    """Set ``count`` attributes of one trial in one statement: ``trial_id``, ``key0``, ``value0``, ``key1``, …"""
    rows = ", ".join(f"(:trial_id, :key{n}, :value{n})" for n in range(count))
    return sa.text(
        f"INSERT INTO {table} (trial_id, key, value_json) VALUES {rows} "
        "ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json"
    )


STUDY_NEWS = sa.text(
    "SELECT key, value_json FROM study_user_attributes WHERE study_id = :study_id AND key IN (:spec, :stop)"
)

# ---- the environment of a study --------------------------------------------------------------------------------------

RUNNING = sa.text(
    "SELECT l.trial_id, l.token FROM trial_leases l JOIN trials t ON t.trial_id = l.trial_id "
    "WHERE l.study_id = :study_id AND l.state = 'running' AND t.state = 'RUNNING'"
)

RECORDED_OF_TRIALS = sa.text(
    "SELECT a.value_json FROM trial_user_attributes a JOIN trial_leases l ON l.trial_id = a.trial_id "
    'WHERE l.study_id = :study_id AND a."key" = :key'
)

# ---- the end of a study ----------------------------------------------------------------------------------------------


def delete_study(optunas: sa.MetaData) -> list[sa.Delete]:
    """Delete every row of the study ``of_study``, in an order that no foreign key refuses.

    Args:
        optunas: Optuna's tables, whichever this release has.
    """
    study: sa.BindParameter[int] = sa.bindparam("of_study")
    trials = optunas.tables["trials"]
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study)
    statements = []
    for table in (trial_leases, *reversed(optunas.sorted_tables)):
        if "study_id" in table.c:
            statements.append(sa.delete(table).where(table.c.study_id == study))
        elif "trial_id" in table.c:
            statements.append(sa.delete(table).where(table.c.trial_id.in_(of_study)))
    return statements


# ---- take-over -------------------------------------------------------------------------------------------------------

_READ = """
    SELECT l.*, t.number, t.state AS trial_state, l.expires_at - {now} AS expires_in, {now} - l.claimed_at AS held_for,
        {now} - l.snapshot_at AS snapshot_age
    FROM trial_leases l JOIN trials t ON t.trial_id = l.trial_id
    WHERE l.study_id = :study_id
"""

READ = _for_each_dialect(_READ + " ORDER BY t.number")

READ_UNFINISHED = _for_each_dialect(
    _READ + " AND l.state IN ('running', 'released') AND t.state = 'RUNNING' ORDER BY t.number"
)

CLAIM = _for_each_dialect(
    """
    UPDATE trial_leases SET token = token + 1, beat = beat + 1, worker = :worker, identity = :identity, nonce = :nonce,
        state = 'running', reason = NULL, claimed_at = {now}, expires_at = {now} + :seconds, lease_seconds = :seconds,
        resumes = resumes + :resumed, seconds_lost = :seconds_lost, crashes = :crashes, vanishes = :vanishes,
        until_epoch = :until, death_epoch = snapshot_epoch, death_batch = snapshot_batch
    WHERE trial_id = :trial_id AND token = :token AND beat = :beat AND state <> 'done'
        AND EXISTS (SELECT 1 FROM trials t WHERE t.trial_id = :trial_id AND t.state = 'RUNNING')
    """
)

FIND_CLAIM = sa.text("SELECT token FROM trial_leases WHERE trial_id = :trial_id AND nonce = :nonce")

# ---- segments --------------------------------------------------------------------------------------------------------

# What every birth, freeze, thaw, decision and end changes, and no report does. It never comes back to what it was:
# while no trial is born, thawed or decided to be frozen, the sum of `until_epoch` only grows.
SEGMENTS_VERSION = sa.text(
    """
    SELECT count(*), sum(token), sum(CASE until_epoch WHEN 0 THEN 1 ELSE 0 END), sum(coalesce(until_epoch, 0)),
        sum(CASE state WHEN 'frozen' THEN 1 ELSE 0 END), sum(CASE state WHEN 'done' THEN 1 ELSE 0 END),
        (SELECT count(*) FROM trials t WHERE t.study_id = :study_id AND t.state NOT IN ('RUNNING', 'WAITING'))
    FROM trial_leases WHERE study_id = :study_id
    """
)

SET_UNTIL = sa.text("UPDATE trial_leases SET until_epoch = :until WHERE trial_id = :trial_id AND token = :token")

UNTIL_OF = sa.text("SELECT until_epoch FROM trial_leases WHERE trial_id = :trial_id AND token = :token")

COUNT_OWNED = sa.text(
    "SELECT count(*) FROM trial_leases l JOIN trials t ON t.trial_id = l.trial_id "
    "WHERE l.study_id = :study_id AND l.state IN ('running', 'released') AND t.state = 'RUNNING'"
)

FROZEN = sa.text(
    "SELECT l.trial_id, t.number, l.token, l.beat, l.seconds_lost FROM trial_leases l "
    "JOIN trials t ON t.trial_id = l.trial_id "
    "WHERE l.study_id = :study_id AND l.state = 'frozen' AND t.state = 'RUNNING' ORDER BY t.number"
)

END_FROZEN = sa.text(
    "UPDATE trial_leases SET state = 'done', reason = :reason, beat = beat + 1 "
    "WHERE trial_id = :trial_id AND state = 'frozen'"
)

# ---- judgement -------------------------------------------------------------------------------------------------------

VALUES_AT_STEP = sa.text(
    """
    SELECT t.number, t.state, v.intermediate_value, v.intermediate_value_type
    FROM trial_intermediate_values v JOIN trials t ON t.trial_id = v.trial_id
    WHERE t.study_id = :study_id AND v.step = :step AND NOT EXISTS (
        SELECT 1 FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND a."key" = :foreign
    )
    """
)

# ---- rights ----------------------------------------------------------------------------------------------------------

RIGHTS = sa.text(  # PostgreSQL's; a standby is an outage, and no right that is missing
    """
    SELECT current_setting('transaction_read_only') = 'on' AND NOT pg_is_in_recovery() AS read_only,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
        (SELECT min(name) FROM unnest(ARRAY['studies', 'study_user_attributes', 'study_system_attributes',
            'trials', 'trial_params', 'trial_values', 'trial_intermediate_values', 'trial_user_attributes',
            'trial_system_attributes', 'trial_leases']) AS name
        WHERE NOT has_table_privilege(to_regclass(name)::oid, 'INSERT')
            OR NOT has_table_privilege(to_regclass(name)::oid, 'UPDATE')) AS protected
    """
)

# ---- creation and migration ------------------------------------------------------------------------------------------

KEEP_CREATORS_OUT = sa.text("SELECT pg_advisory_xact_lock(:key)")  # PostgreSQL's, until the transaction ends

LINK_TO_TRIALS = {  # whoever deletes a trial, with Optuna's own tools too, deletes its lease
    "postgresql": sa.text(
        "ALTER TABLE trial_leases ADD CONSTRAINT trial_leases_trial FOREIGN KEY (trial_id) "
        "REFERENCES trials (trial_id) ON DELETE CASCADE"
    ),
    "sqlite": sa.text(  # Optuna's own connections do not enforce foreign keys there; a trigger fires for everybody
        "CREATE TRIGGER IF NOT EXISTS trial_leases_trial AFTER DELETE ON trials "
        "BEGIN DELETE FROM trial_leases WHERE trial_id = OLD.trial_id; END"
    ),
}

RECORD_LEASE_SECONDS = sa.text(
    f"ALTER TABLE trial_leases ADD COLUMN lease_seconds DOUBLE PRECISION NOT NULL DEFAULT {LEASE_SECONDS:g}"
)


def _record_lease_seconds(connection: Connection) -> None:
    connection.execute(RECORD_LEASE_SECONDS)


RECORD_UNTIL = sa.text("ALTER TABLE trial_leases ADD COLUMN until_epoch INTEGER")


def _record_until(connection: Connection) -> None:
    connection.execute(RECORD_UNTIL)


# From version n to n + 1.
MIGRATIONS: dict[int, Callable[[Connection], None]] = {1: _record_lease_seconds, 2: _record_until}


def installed_version(connection: Connection) -> int | None:
    """Our schema's version in this database, or None where our tables do not exist."""
    if not sa.inspect(connection).has_table(versions.name):
        return None
    return connection.execute(sa.select(sa.func.max(versions.c.version))).scalar()


def create_or_migrate(connection: Connection) -> None:
    """Bring our tables to :data:`SCHEMA_VERSION`. The caller holds the lock that keeps other processes out."""
    version = installed_version(connection)
    if version is None:
        metadata.create_all(connection)
        connection.execute(LINK_TO_TRIALS[connection.dialect.name])
        connection.execute(sa.insert(versions).values(version=SCHEMA_VERSION))
        return
    while version < SCHEMA_VERSION:
        MIGRATIONS[version](connection)
        version += 1
        connection.execute(sa.insert(versions).values(version=version))
