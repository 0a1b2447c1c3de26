"""The accounting database of a lab: mariadb on a tmpfs that ends with it, and slurmdbd in front of it."""

from pathlib import Path

PROGRAMS = ("mariadbd", "slurmdbd", "sacctmgr", "sacct")
TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")

# On a disk that others use too the tables take minutes. Nothing outside of this process sees the tmpfs.
DATABASE = """set -e
mount -t tmpfs tmpfs {data}
{{ echo 'CREATE DATABASE mysql;'; echo 'USE mysql;'; cd /usr/share/mysql; cat {tables}; }} | {server} --bootstrap
exec {server} --bind-address=127.0.0.1 --port={port} --skip-name-resolve --init-file={folder}/init.sql
"""
SERVER = (
    "mariadbd --no-defaults --user=root --datadir={data} --socket={folder}/mariadb.sock --pid-file={folder}/mariadb.pid"
)
USERS = """CREATE DATABASE slurm_acct_db;
CREATE USER slurm IDENTIFIED BY 'lab';
GRANT ALL ON slurm_acct_db.* TO slurm;
"""
DAEMON = """AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=lab
StorageLoc=slurm_acct_db
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/slurmdbd.pid
TrackWCKey=yes
"""
# The strictest: a job needs an association and a workload key that the database knows.
CONTROL = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.sock
AccountingStorageEnforce=wckeys
TrackWCKey=yes"""


def configure(folder: Path, port: int, database_port: int) -> str:
    """Write what slurmdbd reads and return the controller's lines."""
    path = folder / "slurmdbd.conf"
    path.touch(mode=0o600)
    path.write_text(DAEMON.format(folder=folder, port=port, database_port=database_port))
    return CONTROL.format(folder=folder, port=port)


def database(folder: Path, port: int) -> list[str]:
    """Return the command that makes an empty database and serves it on this port."""
    data = folder / "database"
    data.mkdir()
    (folder / "init.sql").write_text(USERS)
    server = SERVER.format(folder=folder, data=data)
    script = DATABASE.format(folder=folder, data=data, port=port, server=server, tables=" ".join(TABLES))
    return ["unshare", "--mount", "sh", "-c", script]
