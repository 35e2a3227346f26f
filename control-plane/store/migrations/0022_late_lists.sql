ALTER TABLE "cellfleet_control"."router" ADD COLUMN "first_seen_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."failover" ADD COLUMN "report_acks" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."standby" ADD COLUMN "seen_system" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."standby" ADD COLUMN "seen_timeline" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."standby" ADD COLUMN "seen_boot" text;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."standby" ADD COLUMN "seen_grant" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."standby" ADD COLUMN "seen_lsn" text DEFAULT '0/0' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."standby" ADD COLUMN "seen_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."standby" ADD COLUMN "asked_at" timestamp with time zone;