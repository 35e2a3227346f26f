ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "lease_mode" text DEFAULT 'timed' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "lease_mode_number" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "lease_mode_acked" bigint DEFAULT 0 NOT NULL;