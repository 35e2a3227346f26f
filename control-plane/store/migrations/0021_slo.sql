CREATE TABLE "cellfleet_control"."slo_count" (
	"cell" text NOT NULL,
	"service" text NOT NULL,
	"tier" text NOT NULL,
	"grain" text NOT NULL,
	"at" timestamp with time zone NOT NULL,
	"requests" bigint NOT NULL,
	"failures" bigint NOT NULL,
	CONSTRAINT "slo_count_cell_service_tier_grain_at_pk" PRIMARY KEY("cell","service","tier","grain","at")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."slo_desk" (
	"one" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"burnt" text[] NOT NULL,
	"at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."slo_objective" (
	"id" text PRIMARY KEY NOT NULL,
	"cell" text NOT NULL,
	"service" text NOT NULL,
	"tier" text NOT NULL,
	"target" double precision NOT NULL,
	"window_days" integer NOT NULL,
	"set_by" text DEFAULT '' NOT NULL,
	"reason" text DEFAULT '' NOT NULL,
	"since" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."slo_source" (
	"source" text PRIMARY KEY NOT NULL,
	"total" bigint NOT NULL,
	"counts" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"before" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE INDEX "slo_count_at" ON "cellfleet_control"."slo_count" USING btree ("at");--> statement-breakpoint
INSERT INTO "cellfleet_control"."slo_objective" ("id", "cell", "service", "tier", "target", "window_days", "set_by", "reason")
VALUES ('availability', '*', '*', '*', 0.999, 30, 'cellfleet', 'the default of every fleet') ON CONFLICT DO NOTHING;
