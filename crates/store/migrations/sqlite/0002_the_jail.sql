-- What a jail sent, received and was refused (JSON), and its processor time by kind.
ALTER TABLE jails ADD COLUMN network TEXT;
ALTER TABLE jails ADD COLUMN cpu_user_usec BIGINT;
ALTER TABLE jails ADD COLUMN cpu_system_usec BIGINT;
