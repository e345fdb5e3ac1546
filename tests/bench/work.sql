-- work.sql - the SQL workload: a table filled, indexed, joined, grouped and updated, in memory.
CREATE TABLE item(id INTEGER PRIMARY KEY, kind INTEGER, price INTEGER, name TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO item SELECT i, i * 7919 % 97, i * 104729 % 10007, 'item ' || (i * 31337 % 60013) FROM n;
COMMIT;
CREATE INDEX item_kind ON item(kind, price);
CREATE INDEX item_name ON item(name);
SELECT kind, count(*), sum(price), max(name) FROM item GROUP BY kind ORDER BY 3 DESC LIMIT 10;
SELECT count(*), sum(a.price - b.price) FROM item a JOIN item b ON a.name = b.name AND a.id <= b.id + 40000;
SELECT count(*) FROM item WHERE name LIKE '%77%';
BEGIN;
UPDATE item SET price = price + 1 WHERE kind < 30;
DELETE FROM item WHERE price % 5 = 0;
COMMIT;
SELECT count(*), sum(price), min(name) FROM item;
