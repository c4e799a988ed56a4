-- What a watcher's queue holds. Studies and files are named by pseudonyms, and times are in seconds
-- since 1970 but for those of files, which are in nanoseconds.

PRAGMA synchronous = FULL; -- what is noted survives a loss of power
PRAGMA locking_mode = EXCLUSIVE; -- one process has the queue, from here on
BEGIN EXCLUSIVE;

CREATE TABLE IF NOT EXISTS files ( -- of the folder, at the last look
    key TEXT PRIMARY KEY, size INTEGER, changed INTEGER, touched INTEGER, -- st_mtime, st_ctime
    unfinished INTEGER, -- whether its name says so
    study TEXT); -- "" where it is no image of one

CREATE TABLE IF NOT EXISTS studies ( -- in the folder
    study TEXT PRIMARY KEY,
    content TEXT, -- a digest of its files
    files INTEGER,
    since REAL, -- when it last changed
    attempts INTEGER DEFAULT 0, due REAL DEFAULT 0, reason TEXT DEFAULT ''); -- of its prediction

CREATE TABLE IF NOT EXISTS results ( -- what became of a study with some content
    study TEXT, content TEXT,
    state TEXT, -- predicted, done or failed
    entry TEXT, -- what the log says, as JSON
    bytes INTEGER, -- of its folder; 0: it is removed
    finished REAL,
    logged INTEGER DEFAULT 0,
    PRIMARY KEY (study, content));

CREATE INDEX IF NOT EXISTS results_by_state ON results (state);

CREATE TABLE IF NOT EXISTS sends ( -- of a result to a destination, once that was tried
    study TEXT, content TEXT, destination TEXT,
    state TEXT, -- waiting, sent or refused
    attempts INTEGER, -- refusals
    due REAL, reason TEXT,
    PRIMARY KEY (study, content, destination));

CREATE TABLE IF NOT EXISTS sent ( -- objects that a destination has, by the SHA-256 of their bytes
    destination TEXT, object TEXT, PRIMARY KEY (destination, object)) WITHOUT ROWID;

COMMIT;

CREATE TEMP TABLE destinations (name TEXT PRIMARY KEY);

CREATE TEMP VIEW owed AS -- results that a destination has not got, whenever that was named
    SELECT r.study, r.content, name AS destination, coalesce(s.attempts, 0) AS attempts,
    coalesce(s.due, 0) AS due, r.rowid AS place FROM results r JOIN destinations LEFT JOIN sends s
    ON (s.study, s.content, s.destination) = (r.study, r.content, name)
    WHERE r.state = 'predicted' AND coalesce(s.state, 'waiting') = 'waiting';

CREATE TEMP TABLE present ( -- while the process runs: the files of the folder, with their paths
    key TEXT PRIMARY KEY, path BLOB, size INTEGER, changed INTEGER, touched INTEGER,
    unfinished INTEGER);

CREATE TEMP VIEW changed AS -- files whose header is to be read
    SELECT p.* FROM present p LEFT JOIN files f ON f.key = p.key WHERE f.key IS NULL
    OR (f.size, f.changed, f.touched) != (p.size, p.changed, p.touched);

CREATE TEMP VIEW found AS -- studies, by their files; sha256() is given a line for each
    SELECT study, sha256(group_concat(key || ' ' || size || ' ' || changed, char(10))) AS content,
    count(*) AS files, max(touched) / 1e9 AS since FROM files WHERE study != '' GROUP BY study;

CREATE TEMP VIEW whole AS -- the images of studies, with their paths
    SELECT study, path, p.size, p.changed FROM present p JOIN files USING (key)
    WHERE NOT p.unfinished ORDER BY path;

CREATE TEMP VIEW fresh AS -- studies without a result of what they now consist of
    SELECT * FROM studies WHERE (study, content) NOT IN (SELECT study, content FROM results);

CREATE TEMP VIEW counts AS
    SELECT 'waiting', count(*) FROM fresh UNION ALL
    SELECT column1, (SELECT count(*) FROM results WHERE state = column1)
    FROM (VALUES ('predicted'), ('done'), ('failed'));
