-- Learn the error codes of new dead letters and of held lanes. The margin is for dead letters whose
-- transactions commit late. In the very first round no code is news.
insert into outbox.known_error_code (code, at)
select distinct f.code, case when %(seen)s::bigint is null then '-infinity' else clock_timestamp() end
from (select d.error_code as code from outbox.dead_letter as d
      where d.dead_letter_id > coalesce(%(seen)s::bigint, 0) - 1000
      union
      select l.hold_code from outbox.lane as l where l.held_at is not null) as f
where f.code is not null
on conflict (code) do nothing
