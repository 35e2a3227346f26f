ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "stage_number" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "stage_applied_number" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
-- What was adopted before changes were counted has had one: its database, which has counted none, is told its stage once more.
UPDATE "cellfleet_control"."cell" SET "stage_number" = 1 WHERE "adopted";
