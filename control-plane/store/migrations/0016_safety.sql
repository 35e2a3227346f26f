CREATE TABLE "cellfleet_control"."safety" (
	"one" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"lever_engaged" boolean DEFAULT false NOT NULL,
	"lever_by" text DEFAULT '' NOT NULL,
	"lever_reason" text DEFAULT '' NOT NULL,
	"lever_since" timestamp with time zone,
	"limits" jsonb DEFAULT '{}'::jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."safety_switch" (
	"id" text PRIMARY KEY NOT NULL,
	"open" boolean NOT NULL,
	"kinds" text[] NOT NULL,
	"set_by" text NOT NULL,
	"reason" text NOT NULL,
	"since" timestamp with time zone DEFAULT now() NOT NULL
);
