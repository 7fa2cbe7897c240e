-- A transaction of its own, for its number alone: once it has ended, snapshots name all that are open and have a
-- lower number (above the last one that has ended they name none), and all others began after this time.
select statement_timestamp() as at
where pg_current_xact_id() is not null
