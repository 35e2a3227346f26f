CREATE TABLE "cellfleet_control"."disowned" (
	"cell" text NOT NULL,
	"key" text NOT NULL,
	"state" text NOT NULL,
	"epoch" bigint NOT NULL,
	"op" text NOT NULL,
	"attempt" integer DEFAULT 0 NOT NULL,
	"revision" bigint NOT NULL,
	CONSTRAINT "disowned_cell_key_pk" PRIMARY KEY("cell","key")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."recovery_cell" (
	"cell" text PRIMARY KEY NOT NULL,
	"state" text NOT NULL,
	"claims" bigint DEFAULT 0 NOT NULL,
	"reason" text DEFAULT '' NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."recovery_claim" (
	"key" text NOT NULL,
	"cell" text NOT NULL,
	"state" text NOT NULL,
	"epoch" bigint NOT NULL,
	CONSTRAINT "recovery_claim_key_cell_pk" PRIMARY KEY("key","cell")
);
--> statement-breakpoint
DROP INDEX "cellfleet_control"."placement_pending";--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "boot" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "boot_instance" text DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."cell" ADD COLUMN "grant_seen" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."fleet" ADD COLUMN "recovery_step" text DEFAULT 'none' NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."fleet" ADD COLUMN "recovery_since" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."fleet" ADD COLUMN "revision_max_seen" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."fleet" ADD COLUMN "epoch_max_seen" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."fleet" ADD COLUMN "fence_revision" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "cellfleet_control"."fleet" ADD COLUMN "incarnation" text DEFAULT '' NOT NULL;--> statement-breakpoint
CREATE INDEX "disowned_cell_revision" ON "cellfleet_control"."disowned" USING btree ("cell","revision");--> statement-breakpoint
CREATE INDEX "placement_pending" ON "cellfleet_control"."placement" USING btree ("cell","revision") WHERE state = 'pending';