-- Rows that follow from the projects: `fixture.rows` of them in the largest table.
INSERT INTO issues (project_id, title, description, labels, settings, sealed, weight, ratio, seen, confidential, period, updated_at)
SELECT (SELECT min(id) FROM projects) + n % (SELECT count(*) FROM projects),
       'Issue ' || md5(current_setting('fixture.seed') || n),
       CASE n % 8
           WHEN 0 THEN NULL
           WHEN 1 THEN ''
           WHEN 2 THEN E'two\nlines\r\nand a tab\t.'
           WHEN 3 THEN E'\\.'
           WHEN 4 THEN E'back\\slash \\N ''single'' "double" $$dollar$$ -- no comment; DROP TABLE issues;'
           WHEN 5 THEN E'\\.\nCOPY issues FROM stdin;\n\\.\n'
           WHEN 6 THEN 'ünïcödé 🦊 ' || chr(1) || chr(127)
           ELSE repeat(md5(n::text), 40)
       END,
       CASE WHEN n % 3 = 0 THEN ARRAY['bug', 'with "quotes", and {braces}', NULL, E'back\\slash'] ELSE '{}' END,
       jsonb_build_object('n', n, 'nested', jsonb_build_array(n, NULL, 'a\b', jsonb_build_object('k', 'v"'))),
       CASE WHEN n % 4 = 0 THEN NULL ELSE decode(md5(n::text), 'hex') || '\x00ff0a5c'::bytea END,
       n / 7.0,
       CASE n % 50 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE 1 / n::double precision END,
       (ARRAY['private', 'internal', 'public'])[1 + n % 3]::visibility,
       CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN true ELSE false END,
       tstzrange('2024-04-25 00:00+00', '2024-04-25 00:00+00'::timestamptz + n * interval '1 second'),
       '2024-04-25 13:55:14.123456+00'::timestamptz - n * interval '1 minute'
FROM generate_series(1, current_setting('fixture.rows')::integer) AS n;

INSERT INTO audit_events (author_id, details, ip_address, created_at)
SELECT n % 17, md5(n::text), '10.0.0.0'::inet + n, '2024-03-01'::timestamp + n * (interval '90 days' / current_setting('fixture.rows')::integer)
FROM generate_series(1, current_setting('fixture.rows')::integer - 1) AS n;

INSERT INTO issue_searches SELECT project_id, id, to_tsvector('simple', coalesce(description, title)) FROM issues;
SELECT setval('iid_seq', 4242, false);

CREATE MATERIALIZED VIEW issue_counts AS SELECT project_id, count(*) AS issues FROM issues GROUP BY project_id;
CREATE UNIQUE INDEX ON issue_counts (project_id);
GRANT SELECT ON projects, issues TO gitlab_monitor;
RESET ROLE;
ANALYZE;
