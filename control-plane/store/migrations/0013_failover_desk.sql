CREATE TABLE "cellfleet_control"."failover_desk" (
	"one" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"policy" text,
	"policy_by" text DEFAULT '' NOT NULL,
	"policy_reason" text DEFAULT '' NOT NULL,
	"policy_at" timestamp with time zone,
	"sights" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"sights_at" timestamp with time zone,
	"term" bigint DEFAULT 0 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."router_sight" (
	"router" text PRIMARY KEY NOT NULL,
	"reports" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"seen_at" timestamp with time zone DEFAULT now() NOT NULL
);
