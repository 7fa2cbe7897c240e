-- What a round looks at beside the figures that /metrics shows. Bounded: the newest dead letters alone.
select (select coalesce(json_object_agg(q.queue, q.n), '{}')::text
        from (select coalesce(n.queue, '') as queue, count(*) as n
              from (select d.queue, d.failed_at from outbox.dead_letter as d
                    order by d.dead_letter_id desc limit 10000) as n
              where n.failed_at > clock_timestamp() - interval '15 minutes' group by 1) as q) as dead_letters,
       (select coalesce(json_agg(c.code), '[]')::text
        from (select k.code from outbox.known_error_code as k
              where k.at > clock_timestamp() - make_interval(secs => %(new_s)s) order by k.at limit 100) as c) as new_codes
