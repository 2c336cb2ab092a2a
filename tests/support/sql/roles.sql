DO $$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['gitlab', 'gitlab_monitor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', wanted);
        END IF;
    END LOOP;
END $$;
